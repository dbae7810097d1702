package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// exits are what the exit codes of each command mean, besides those that mean
// the same of all. docs/judging.md has the same table.
var exits = []struct{ command, means string }{
	{"run", "0 pass, 1 fail, 2 unproven, 3 invalid; with --baseline as compare"},
	{"judge", "0 pass, 1 fail, 2 unproven, 3 invalid"},
	{"compare", "0 the same or better, 1 a regression, 2 undecided"},
	{"capacity", "0 a rate was found at which the objectives hold, 1 they hold at none"},
	{"checklist", "0 all is done, 1 something failed, 2 something is open"},
	{"scan", "0 no such finding, 1 there is one, 2 unproven"},
	{"release", "0 it is live, 1 it was rejected or rolled back"},
	{"report", "0 it is written, whatever the verdict"},
	{"up", "0 the service is up"},
	{"down", "0 nothing of it runs"},
	{"backup", "0 the copy is whole"},
	{"restore", "0 the ledger is whole"},
	{"recover", "0 no fault is left"},
	{"init", "0 the gate is written"},
	{"list", "0 it is printed"},
}

const exitsOfAll = "4 it could not be done, 130 interrupted"

// tellExits puts the exit codes into the help of the commands.
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
