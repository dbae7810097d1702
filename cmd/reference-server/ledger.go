package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// ledgerCommand keeps the books of a gateway: its keys and its backups.
func ledgerCommand(out io.Writer) *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "API keys, backups and restores of the gateway's ledger",
	}
	cmd.PersistentFlags().StringVar(&at, "ledger", "ledger.db", "a SQLite file, or a postgres:// URL")
	with := func(do func(context.Context, *ledger.Ledger) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			l, err := ledger.Open(cmd.Context(), at)
			if err != nil {
				return err
			}
			return errors.Join(do(cmd.Context(), l), l.Close())
		}
	}
	cmd.AddCommand(addKeyCommand(out, with), revokeKeyCommand(with), backupCommand(out, with), restoreCommand(out, &at))
	return cmd
}

type withLedger func(func(context.Context, *ledger.Ledger) error) func(*cobra.Command, []string) error

func addKeyCommand(out io.Writer, with withLedger) *cobra.Command {
	k := ledger.Key{ID: "key_" + strings.ToLower(rand.Text()[:12])}
	var valid time.Duration
	cmd := &cobra.Command{Use: "add-key", Short: "Make an API key and print it, once: the ledger keeps only its hash", Args: cobra.NoArgs}
	f := cmd.Flags()
	f.StringVar(&k.Tenant, "tenant", "default", "whose it is")
	f.StringVar(&k.Class, "class", "standard", "how important its requests are, one of the configuration's classes")
	f.StringSliceVar(&k.Scopes, "scope", []string{"inference"}, "what it may do")
	f.StringVar(&k.ID, "id", k.ID, "its name, for revoke-key and the audit log")
	f.DurationVar(&valid, "valid", 90*24*time.Hour, "how long; 0 is for ever")
	cmd.RunE = with(func(ctx context.Context, l *ledger.Ledger) error {
		if valid > 0 {
			k.Expires = time.Now().Add(valid)
		}
		secret := ledger.NewSecret()
		if err := l.AddKey(ctx, k, secret); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, secret)
		return err
	})
	return cmd
}

func revokeKeyCommand(with withLedger) *cobra.Command {
	var id string
	cmd := &cobra.Command{Use: "revoke-key --id ID", Short: "End an API key at once", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&id, "id", "", "its name")
	cmd.RunE = with(func(ctx context.Context, l *ledger.Ledger) error { return l.RevokeKey(ctx, id) })
	return cmd
}

func backupCommand(out io.Writer, with withLedger) *cobra.Command {
	var to string
	cmd := &cobra.Command{Use: "backup --to FILE", Short: "Copy a SQLite ledger that is in use, and verify the copy", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&to, "to", "", "the new file")
	_ = cmd.MarkFlagRequired("to")
	cmd.RunE = with(func(ctx context.Context, l *ledger.Ledger) error {
		counts, err := l.Backup(ctx, to)
		if err != nil {
			return err
		}
		return tellCounts(out, "verified "+to, counts)
	})
	return cmd
}

func restoreCommand(out io.Writer, at *string) *cobra.Command {
	var from string
	cmd := &cobra.Command{Use: "restore --from FILE", Short: "Make the ledger from a backup that verifies, where none is", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&from, "from", "", "the backup")
	_ = cmd.MarkFlagRequired("from")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		counts, err := ledger.Restore(cmd.Context(), from, *at)
		if err != nil {
			return err
		}
		return tellCounts(out, "restored and verified "+*at, counts)
	}
	return cmd
}

func tellCounts(out io.Writer, what string, counts ledger.Counts) error {
	var rows []string
	for _, table := range slices.Sorted(maps.Keys(counts)) {
		rows = append(rows, fmt.Sprintf("%s %d", table, counts[table]))
	}
	_, err := fmt.Fprintf(out, "%s: %s\n", what, strings.Join(rows, ", "))
	return err
}
