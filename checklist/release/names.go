package release

import "github.com/launchgate/launchgate/internal/words"

// ours are the names in the checklist that launchgate brings.
var ours = []words.Phrase{
	"Functional tests",
	"The service's own tests pass",
	"Answers do not change under load",
	"Answers have the requested length",
	"Stress test",
	"First tokens arrive in time",
	"Requests do not fail",
	"The service does not become slower over time",
	"The memory of the service does not grow",
	"Compatibility",
	"The clients in use understand the answers",
	"Security scan",
	"No finding of severity high or worse",
	"Monitoring and alerts",
	"The right alert fires when something breaks",
	"The people on call are paged",
	"Backup and restore",
	"No acknowledged data is lost",
	"A backup was restored and verified",
	"Runbook",
	"The runbook was reviewed",
	"Emergency plan",
	"The service survives the loss of a replica",
	"The service survives the loss of a node",
	"The people on call have rehearsed the plan",
}

// named is a name for a report: one of ours is translated, and a name of others is not.
func named(name string) words.Kept {
	for _, own := range ours {
		if string(own) == name {
			return words.Kept{Sentence: words.Say(own)}
		}
	}
	return words.Kept{Sentence: words.Verbatim(name)}
}
