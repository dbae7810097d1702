package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/launchgate/launchgate/internal/version"
)

func manCommand(out io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the manual pages of launchgate and its commands into a folder",
		Example: `  launchgate man man1 && man -l man1/launchgate-run.1
  launchgate man /usr/local/share/man/man1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			n := 0
			for _, c := range append([]*cobra.Command{cmd.Root()}, cmd.Root().Commands()...) {
				if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
					continue
				}
				c.InitDefaultHelpFlag()
				if err := os.WriteFile(filepath.Join(args[0], manName(c)+".1"), manPage(c), 0o644); err != nil {
					return err
				}
				n++
			}
			_, err := fmt.Fprintf(out, "wrote %d manual pages into %s\n", n, args[0])
			return err
		},
	}
}

func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage is the manual page of a command. Its date is that of the source, so that two
// builds write the same page.
func manPage(c *cobra.Command) []byte {
	var b bytes.Buffer
	date := time.Unix(0, 0)
	if at, err := time.Parse(time.RFC3339, version.Of().Time); err == nil {
		date = at
	}
	fmt.Fprintf(&b, "%% %q \"1\" %q \"launchgate %s\" \"launchgate\"\n", strings.ToUpper(manName(c)), date.UTC().Format("January 2006"), version.Short())
	fmt.Fprintf(&b, "# NAME\n%s - %s\n\n# SYNOPSIS\n**%s**\n\n", manName(c), c.Short, strings.NewReplacer("<", `\<`, "|", `\|`).Replace(c.UseLine()))
	long := c.Long
	if long == "" {
		long = c.Short
	}
	fmt.Fprintf(&b, "# DESCRIPTION\n%s\n\n", indentedAsCode(long))
	flags := func(title string, set *pflag.FlagSet) {
		if !set.HasAvailableFlags() {
			return
		}
		fmt.Fprintf(&b, "# %s\n", title)
		set.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			name, usage := pflag.UnquoteUsage(f)
			line := "**--" + f.Name + "**"
			if f.Shorthand != "" {
				line = "**-" + f.Shorthand + "**, " + line
			}
			if name != "" {
				line += "=" + strings.ToUpper(name)
			}
			fmt.Fprintf(&b, "%s\n\t%s\n\n", line, strings.ReplaceAll(usage, "<", `\<`))
		})
	}
	flags("OPTIONS", c.NonInheritedFlags())
	flags("OPTIONS OF EVERY COMMAND", c.InheritedFlags())
	if c.Example != "" {
		fmt.Fprintf(&b, "# EXAMPLES\n```\n%s\n```\n\n", c.Example)
	}
	fmt.Fprint(&b, "# SEE ALSO\n")
	if c.HasParent() {
		fmt.Fprintf(&b, "**%s(1)**\n", manName(c.Parent()))
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
			fmt.Fprintf(&b, "**%s(1)** ", manName(sub))
		}
	}
	return md2man.Render(b.Bytes())
}

// indentedAsCode fences the indented lines of a help text, which are commands.
func indentedAsCode(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		if code := strings.HasPrefix(line, "  "); code != inside && strings.TrimSpace(line) != "" {
			b.WriteString("\n```\n")
			inside = code
		}
		b.WriteString(line)
	}
	if inside {
		b.WriteString("\n```\n")
	}
	return b.String()
}
