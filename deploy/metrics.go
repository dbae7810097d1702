package deploy

// Metrics are where the processes of the deployment tell theirs.
func (l *Local) Metrics() []Scraped { return l.scraped }
