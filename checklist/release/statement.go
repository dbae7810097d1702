package release

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/launchgate/launchgate/internal/words"
)

// Namespace is the namespace of signatures: ssh-keygen -Y sign -n launchgate.
const Namespace = "launchgate"

// Statement is what a person states about one check, valid until a day.
type Statement struct {
	Check   string `yaml:"check"`
	Who     string `yaml:"who"`
	Says    string `yaml:"says"`
	Expires string `yaml:"expires"` // the last day on which it is valid
}

// statement checks a signed file as the evidence of a check. The signature covers the
// file byte for byte.
func (c Checklist) statement(now time.Time, id, name string) (State, words.Sentence) {
	file := filepath.Join(c.dir, name)
	content, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Open, words.Say("nobody has signed for it: %s does not exist", name)
	}
	if err != nil {
		return Open, words.Say("%s cannot be read: %v", name, err)
	}
	var s Statement
	if err := yaml.NewDecoder(bytes.NewReader(content), yaml.Strict()).Decode(&s); err != nil {
		return Open, words.Say("%s is not a statement: %v", name, err)
	}
	until, err := time.Parse(day, s.Expires)
	switch {
	case s.Check != id:
		return Open, words.Say("%s is about %q, expected %q", name, s.Check, id)
	case s.Who == "" || strings.TrimSpace(s.Says) == "":
		return Open, words.Say("%s does not give both who and says", name)
	case err != nil:
		return Open, words.Say("%s expires on %q, expected a day such as 2027-02-20", name, s.Expires)
	case !now.Before(until.AddDate(0, 0, 1)):
		return Open, words.Say("the statement of %s in %s expired on %s", s.Who, name, s.Expires)
	}
	if err := c.verify(now, s.Who, content, file+".sig"); err != nil {
		return Open, words.Say("%s does not count: %v", name, err)
	}
	return Done, words.Say("%s, until %s: %s", s.Who, s.Expires, strings.TrimSpace(s.Says))
}

// verify checks a signature against the keys of the person who is said to have signed.
func (c Checklist) verify(now time.Time, who string, content []byte, file string) error {
	armored, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("it is not signed; ssh-keygen -Y sign -n %s -f KEY %s signs it", Namespace, strings.TrimSuffix(file, ".sig"))
	}
	if err != nil {
		return err
	}
	signature, err := sshsig.Unarmor(armored)
	if err != nil {
		return fmt.Errorf("its signature cannot be read: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(c.dir, c.Signers))
	if err != nil {
		return fmt.Errorf("the keys of those who may sign are missing: %w", err)
	}
	signers, err := parseSigners(list)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Signers, err)
	}
	known := false
	for _, s := range signers {
		if !s.may(who, now) {
			continue
		}
		known = true
		if sshsig.Verify(bytes.NewReader(content), signature, s.key, signature.HashAlgorithm, Namespace) == nil {
			return nil
		}
	}
	if !known {
		return fmt.Errorf("%s has no key in %s that counts today", who, c.Signers)
	}
	return fmt.Errorf("its signature is not by a key of %s, or the file was changed after it was signed", who)
}

// signer is a line of OpenSSH's allowed_signers (ssh-keygen(1), ALLOWED
// SIGNERS).
type signer struct {
	principals    []string
	key           ssh.PublicKey
	namespaces    []string  // empty: all namespaces
	after, before time.Time // zero: no limit
}

func (s signer) may(who string, now time.Time) bool {
	if !matchesAny(s.principals, who) || len(s.namespaces) > 0 && !matchesAny(s.namespaces, Namespace) {
		return false
	}
	return (s.after.IsZero() || !now.Before(s.after)) && (s.before.IsZero() || now.Before(s.before))
}

func matchesAny(patterns []string, name string) bool {
	matched := false
	for _, p := range patterns {
		pattern, not := strings.CutPrefix(p, "!")
		if ok, err := path.Match(pattern, name); err == nil && ok {
			if not {
				return false
			}
			matched = true
		}
	}
	return matched
}

func parseSigners(content []byte) ([]signer, error) {
	var all []signer
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		principals, rest, _ := strings.Cut(line, " ")
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
		if err != nil {
			return nil, fmt.Errorf("line %d: found no key, expected PRINCIPAL [OPTIONS] KEYTYPE KEY", number)
		}
		s := signer{principals: strings.Split(strings.Trim(principals, `"`), ","), key: key}
		for _, o := range options {
			if err := s.option(o); err != nil {
				return nil, fmt.Errorf("line %d: %w", number, err)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

func (s *signer) option(text string) (err error) {
	name, value, _ := strings.Cut(text, "=")
	value = strings.Trim(value, `"`)
	switch strings.ToLower(name) {
	case "namespaces":
		s.namespaces = strings.Split(value, ",")
	case "valid-after":
		s.after, err = signerTime(value)
	case "valid-before":
		s.before, err = signerTime(value)
	default:
		err = fmt.Errorf("the option %q is not understood; namespaces, valid-after and valid-before are", name)
	}
	return err
}

func signerTime(text string) (time.Time, error) {
	zone := time.Local
	if utc, ok := strings.CutSuffix(text, "Z"); ok {
		text, zone = utc, time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("found the time %q, expected YYYYMMDD[HHMM[SS]][Z]", text)
}
