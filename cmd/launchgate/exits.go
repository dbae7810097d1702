package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// exits are the meanings of each command's exit codes, except for those that
// all commands share. docs/judging.md has the same table.
var exits = []struct{ command, means string }{
	{"run", "0 pass, 1 fail, 2 unproven, 3 invalid; with --baseline as compare"},
	{"judge", "0 pass, 1 fail, 2 unproven, 3 invalid"},
	{"compare", "0 the same or better, 1 a regression, 2 undecided"},
	{"capacity", "0 found a rate at which the objectives hold, 1 they hold at no rate; with --at-least 0 the rate holds, 1 it does not, 2 undecided"},
	{"calibrate", "0 the model is written"},
	{"predict", "0 every stage is forecast, 2 one is beyond what was calibrated"},
	{"plan", "0 the plan is written"},
	{"checklist", "0 every item is done, 1 an item failed, 2 an item is open"},
	{"scan", "0 no finding fails the scan, 1 a finding fails it, 2 unproven"},
	{"release", "0 the release is live, 1 it was rejected or rolled back"},
	{"report", "0 the report is written, whatever the verdict"},
	{"import", "0 pass, 1 fail, 2 unproven, 3 invalid"},
	{"export", "0 the file is written, whatever the verdict"},
	{"serve", "0 it was ended and the run under way was interrupted"},
	{"up", "0 the service is up"},
	{"down", "0 no process of the deployment runs"},
	{"backup", "0 the copy is whole"},
	{"restore", "0 the ledger is whole"},
	{"recover", "0 no fault is left"},
	{"init", "0 the gate is written"},
	{"list", "0 the list is printed"},
	{"version", "0 the version is printed"},
	{"man", "0 the pages are written"},
	{"doctor", "0 the answer is printed, whatever is missing"},
}

const exitsOfAll = "4 the command could not do its work, 130 interrupted"

// tellExits adds the exit codes to the help of the commands.
func tellExits(root *cobra.Command) {
	for _, e := range exits {
		for _, cmd := range root.Commands() {
			if cmd.Name() != e.command {
				continue
			}
			if cmd.Long == "" {
				cmd.Long = cmd.Short + "."
			}
			cmd.Long = fmt.Sprintf("%s\n\nExit codes: %s; %s.", strings.TrimSpace(cmd.Long), e.means, exitsOfAll)
		}
	}
}
