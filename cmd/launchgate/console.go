package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// console is how much a run prints.
type console struct {
	quiet   bool // the verdict and errors alone
	verbose bool // every failed request and every event of the target too
}

func (c *console) flags(root *cobra.Command) {
	root.PersistentFlags().BoolVarP(&c.quiet, "quiet", "q", false, "print only the result and errors, no progress and no remarks")
	root.PersistentFlags().BoolVarP(&c.verbose, "verbose", "v", false, "also tell each failed request and each event of the target while it happens")
	root.MarkFlagsMutuallyExclusive("quiet", "verbose")
}

// remarks is where what a person should know goes, besides results and errors.
func (c *console) remarks(errOut io.Writer) io.Writer {
	if c.quiet {
		return io.Discard
	}
	return errOut
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// coloured reports whether to write in colour: at a terminal, unless NO_COLOR has any
// value (no-color.org) or the terminal knows no colours.
func coloured(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

// columnsOf is how wide a terminal is.
func columnsOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}
