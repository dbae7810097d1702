package checklist

import _ "embed"

// GoLive is release.yaml, the go-live checklist of the production guide.
//
//go:embed release.yaml
var GoLive []byte
