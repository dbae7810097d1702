package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/gateway"
	"github.com/launchgate/launchgate/reference-server/ledger"
)

// ledgerCommand manages the ledger of a gateway: its keys and its backups.
func ledgerCommand(out, errOut io.Writer) *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Manage the gateway's ledger: API keys, models, configurations, backups",
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
	cmd.AddCommand(addKeyCommand(os.Stdin, out, with), revokeKeyCommand(with), backupCommand(out, with), restoreCommand(out, &at), replicateCommand(errOut, &at), setModelCommand(with), modelsCommand(out, with), addConfigurationCommand(out, with))
	return cmd
}

type withLedger func(func(context.Context, *ledger.Ledger) error) func(*cobra.Command, []string) error

func addKeyCommand(in io.Reader, out io.Writer, with withLedger) *cobra.Command {
	k := ledger.Key{ID: "key_" + strings.ToLower(rand.Text()[:12])}
	var valid time.Duration
	var again bool
	cmd := &cobra.Command{Use: "add-key", Short: "Make an API key and print it once; the ledger keeps only its hash", Args: cobra.NoArgs}
	f := cmd.Flags()
	f.StringVar(&k.Tenant, "tenant", "default", "the tenant that the key belongs to")
	f.StringVar(&k.Class, "class", "standard", "the class of its requests, one of the classes in the configuration")
	f.StringSliceVar(&k.Scopes, "scope", []string{"inference"}, "what the key permits: inference, inside (shows which replica answered, and why one failed), admin")
	f.StringVar(&k.ID, "id", k.ID, "the id of the key, used by revoke-key and the audit log")
	f.BoolVar(&again, "secret-from-stdin", false, "read an existing key from standard input, to register it in a new ledger after the old one was lost")
	f.DurationVar(&valid, "valid", 90*24*time.Hour, "how long the key is valid; 0: for ever")
	cmd.RunE = with(func(ctx context.Context, l *ledger.Ledger) error {
		if valid > 0 {
			k.Expires = time.Now().Add(valid)
		}
		secret := ledger.NewSecret()
		if again {
			b, err := io.ReadAll(io.LimitReader(in, 1<<10))
			if secret = strings.TrimSpace(string(b)); err != nil || len(secret) < 16 {
				return errors.Join(errors.New("expected a key of at least 16 characters on standard input"), err)
			}
		}
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
	cmd := &cobra.Command{Use: "revoke-key --id ID", Short: "Revoke an API key at once", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&id, "id", "", "the id of the key")
	cmd.RunE = with(func(ctx context.Context, l *ledger.Ledger) error { return l.RevokeKey(ctx, id) })
	return cmd
}

func setModelCommand(with withLedger) *cobra.Command {
	var m ledger.Model
	cmd := &cobra.Command{Use: "set-model", Short: "Register a version of a model, or change its status", Args: cobra.NoArgs}
	f := cmd.Flags()
	f.StringVar(&m.Name, "name", "default", "the name of the model")
	f.StringVar(&m.Version, "version", "", "the version")
	f.StringVar(&m.SHA256, "sha256", "", "the SHA-256 of its file, which is fixed for a version")
	f.StringVar(&m.Status, "status", "candidate", "candidate, live (this retires the live one before) or rejected")
	for _, name := range []string{"version", "sha256"} {
		_ = cmd.MarkFlagRequired(name)
	}
	cmd.RunE = with(func(ctx context.Context, l *ledger.Ledger) error {
		m.At = time.Now()
		return l.SetModel(ctx, m)
	})
	return cmd
}

func modelsCommand(out io.Writer, with withLedger) *cobra.Command {
	return &cobra.Command{Use: "models", Short: "List the registered model versions", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, l *ledger.Ledger) error {
			all, err := l.Models(ctx)
			for _, m := range all {
				fmt.Fprintf(out, "%s %s %s %s %s\n", m.Name, m.Version, m.Status, m.At.UTC().Format(time.RFC3339), m.SHA256)
			}
			return err
		})}
}

func addConfigurationCommand(out io.Writer, with withLedger) *cobra.Command {
	var from string
	cmd := &cobra.Command{Use: "add-configuration --from FILE", Short: "Check limits and store them as the next version of the configuration", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&from, "from", "", "a file of limits, like deploy/gateway.yaml")
	_ = cmd.MarkFlagRequired("from")
	cmd.RunE = with(func(ctx context.Context, l *ledger.Ledger) error {
		if _, err := gateway.ReadConfig(from); err != nil {
			return err
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		version, err := l.AddConfiguration(ctx, string(text))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, version)
		return err
	})
	return cmd
}

func backupCommand(out io.Writer, with withLedger) *cobra.Command {
	var to string
	cmd := &cobra.Command{Use: "backup --to FILE", Short: "Back up a SQLite ledger that is in use, and verify the copy", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&to, "to", "", "the file to write")
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
	var from, replica string
	cmd := &cobra.Command{Use: "restore --from FILE | --replica FOLDER", Short: "Restore a missing ledger from a backup or a second place, and verify it", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&from, "from", "", "the backup to read")
	cmd.Flags().StringVar(&replica, "replica", "", "the folder that replicate wrote to")
	cmd.MarkFlagsOneRequired("from", "replica")
	cmd.MarkFlagsMutuallyExclusive("from", "replica")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var counts ledger.Counts
		var err error
		if from != "" {
			counts, err = ledger.Restore(cmd.Context(), from, *at)
		} else {
			counts, err = ledger.RestoreReplica(cmd.Context(), replica, *at)
		}
		if err != nil {
			return err
		}
		return tellCounts(out, "restored and verified "+*at, counts)
	}
	return cmd
}

func replicateCommand(errOut io.Writer, at *string) *cobra.Command {
	var to string
	cmd := &cobra.Command{Use: "replicate --to FOLDER", Short: "Replicate a SQLite ledger that is in use to a second place, until SIGTERM", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&to, "to", "", "the folder of the second place, on another disk")
	_ = cmd.MarkFlagRequired("to")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := newLog(errOut, "warn")
		if err != nil {
			return err
		}
		return ledger.Replicate(cmd.Context(), *at, to, log)
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
