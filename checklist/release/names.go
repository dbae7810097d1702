package release

import "github.com/launchgate/launchgate/internal/words"

// ours are the names in the list that launchgate brings.
var ours = []words.Phrase{
	"Functional tests",
	"The service's own tests pass",
	"Answers do not change under load",
	"Answers have the length that was asked for",
	"Stress test",
	"The first token comes in time",
	"Requests do not fail",
	"It does not grow slower",
	"Its memory does not grow",
	"Compatibility",
	"The clients that are in use understand the answers",
	"Security scan",
	"No finding of severity high or worse",
	"Monitoring and alerts",
	"The right alert fires when something breaks",
	"Somebody is paged",
	"Backup and restore",
	"Nothing acknowledged is lost",
	"A backup was restored and verified",
	"Runbook",
	"The runbook was looked through",
	"Emergency plan",
	"The loss of a replica is survived",
	"The loss of a node is survived",
	"The people on call have played it",
}

// named is a name as a report says it: one of ours in the report's language, and
// what somebody else wrote as it is.
func named(name string) words.Kept {
	for _, own := range ours {
		if string(own) == name {
			return words.Kept{Sentence: words.Say(own)}
		}
	}
	return words.Kept{Sentence: words.Verbatim(name)}
}
