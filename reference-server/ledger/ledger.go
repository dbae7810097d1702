// Package ledger keeps the data that the service must not lose: API keys, usage
// records, background responses, configuration and released models.
//
//	gateway-a ──┐
//	            ├──▶ Ledger ──▶ SQLite (WAL, one file) or PostgreSQL
//	gateway-b ──┘
//
// A method that has returned nil has made its row durable: the file or the
// write-ahead log was synced. That is what lets a gateway say "accepted".
// Several gateways may share one ledger; Claim hands a background response to
// one of them at a time.
package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrNotFound is returned for a row that does not exist.
var ErrNotFound = errors.New("not in the ledger")

// Ledger is a database of either kind. The statements are the same for both.
type Ledger struct {
	db      *sql.DB
	sqlite  bool
	batches *batches // of usage records; nil: each record is written separately
}

// Key is an API key as it is stored, without its secret.
type Key struct {
	ID      string
	Tenant  string
	Class   string   // how important its requests are; the configuration orders classes
	Scopes  []string // inference, admin
	Expires time.Time
	Revoked bool
}

// Allows reports whether the key has a scope.
func (k Key) Allows(scope string) bool {
	for _, s := range k.Scopes {
		if s == scope {
			return true
		}
	}
	return false
}

// Usage is what one request used, for the bill of its tenant.
type Usage struct {
	Request string // its id; a second record with it changes nothing
	Tenant  string
	Key     string
	Model   string
	Prompt  int64
	Output  int64
	At      time.Time
}

// Response is a background response: the request as it was accepted, and the
// answer once there is one.
type Response struct {
	ID      string
	Tenant  string
	Request string // JSON
	Status  string // queued, in_progress, completed, incomplete, failed, cancelled
	Result  string // JSON
	Created time.Time
}

// Model is one released version of a model.
type Model struct {
	Name    string
	Version string
	SHA256  string // of its file
	Status  string // candidate, live, rejected, retired
	At      time.Time
}

// Hash is the stored form of a secret. Secrets are 256 random bits, which
// nobody can guess, so a fast hash is as good as a slow one.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// NewSecret makes the secret of a key.
func NewSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return "lg-" + base64.RawURLEncoding.EncodeToString(b)
}

const schema = `
CREATE TABLE IF NOT EXISTS api_keys (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, class TEXT NOT NULL, scopes TEXT NOT NULL, expires BIGINT NOT NULL, revoked BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS usage_records (request TEXT PRIMARY KEY, tenant TEXT NOT NULL, key_id TEXT NOT NULL, model TEXT NOT NULL, prompt BIGINT NOT NULL, output BIGINT NOT NULL, at BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS responses (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, request TEXT NOT NULL, status TEXT NOT NULL, result TEXT NOT NULL, owner TEXT NOT NULL, lease BIGINT NOT NULL, created BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS responses_open ON responses (status, lease, created);
CREATE TABLE IF NOT EXISTS response_texts (id TEXT NOT NULL, part TEXT NOT NULL, tenant TEXT NOT NULL, bytes BIGINT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (id, part));
CREATE INDEX IF NOT EXISTS response_texts_size ON response_texts (tenant, bytes);
CREATE TABLE IF NOT EXISTS configurations (version BIGINT PRIMARY KEY, content TEXT NOT NULL, at BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS models (name TEXT NOT NULL, version TEXT NOT NULL, sha256 TEXT NOT NULL, status TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (name, version));
CREATE TABLE IF NOT EXISTS shares (id BIGINT PRIMARY KEY, version BIGINT NOT NULL, content TEXT NOT NULL);`

// The texts of a response have rows of their own. The status of a response
// changes often, and a database rewrites the whole row each time. Old ledgers
// have the texts in the rows of the responses.
const (
	requestPart = "request"
	resultPart  = "result"
)

// tables are the tables that must not be lost; a backup counts their rows.
// Shares are not among them, because they are valid for seconds only.
var tables = []string{"api_keys", "usage_records", "responses", "configurations", "models"}

// Open opens the ledger at a postgres:// URL, or the SQLite file at a path. It
// creates the file if it does not exist.
func Open(ctx context.Context, at string) (*Ledger, error) {
	l, err := open(at)
	if err != nil {
		return nil, err
	}
	for _, statement := range strings.Split(schema, ";") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := l.db.ExecContext(ctx, statement); err != nil {
			l.Close()
			return nil, fmt.Errorf("open the ledger: %w", err)
		}
	}
	if l.sqlite { // PostgreSQL groups commits by itself
		l.batches = newBatches(l.writeUsage)
	}
	return l, nil
}

// Close waits for the writes that have begun and closes the ledger.
func (l *Ledger) Close() error {
	if l.batches != nil {
		l.batches.close()
	}
	return l.db.Close()
}

// exec runs a statement, whose parameters are written $1, $2, …
func (l *Ledger) exec(ctx context.Context, what, query string, args ...any) (int64, error) {
	res, err := l.db.ExecContext(ctx, l.dialect(query), args...)
	if err != nil {
		return 0, fmt.Errorf("ledger: %s: %w", what, err)
	}
	return res.RowsAffected()
}

// dialect writes parameters in the database's syntax.
func (l *Ledger) dialect(query string) string {
	if l.sqlite {
		return strings.ReplaceAll(query, "$", "?")
	}
	return query
}

func (l *Ledger) row(ctx context.Context, query string, args ...any) *sql.Row {
	return l.db.QueryRowContext(ctx, l.dialect(query), args...)
}

func found(err error, what string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("ledger: %s: %w", what, err)
	}
	return nil
}

// AddKey keeps a key under the hash of its secret.
func (l *Ledger) AddKey(ctx context.Context, k Key, secret string) error {
	_, err := l.exec(ctx, "add key "+k.ID, `INSERT INTO api_keys (id, hash, tenant, class, scopes, expires, revoked) VALUES ($1, $2, $3, $4, $5, $6, 0)`,
		k.ID, Hash(secret), k.Tenant, k.Class, strings.Join(k.Scopes, " "), micros(k.Expires))
	return err
}

// RevokeKey ends a key at once.
func (l *Ledger) RevokeKey(ctx context.Context, id string) error {
	n, err := l.exec(ctx, "revoke key "+id, `UPDATE api_keys SET revoked = 1 WHERE id = $1`, id)
	if err == nil && n == 0 {
		return fmt.Errorf("key %s: %w", id, ErrNotFound)
	}
	return err
}

// KeyOf finds the key of a secret, also if it is revoked or expired.
func (l *Ledger) KeyOf(ctx context.Context, secret string) (Key, error) {
	var k Key
	var scopes string
	var expires, revoked int64
	err := l.row(ctx, `SELECT id, tenant, class, scopes, expires, revoked FROM api_keys WHERE hash = $1`, Hash(secret)).
		Scan(&k.ID, &k.Tenant, &k.Class, &scopes, &expires, &revoked)
	k.Scopes, k.Expires, k.Revoked = strings.Fields(scopes), timeOf(expires), revoked != 0
	return k, found(err, "API key")
}

// AddUsage stores a usage record. It is called before the last event of the
// answer is sent, so that every answer whose end a client saw is counted.
func (l *Ledger) AddUsage(ctx context.Context, u Usage) error {
	if l.batches != nil {
		return l.batches.add(ctx, u)
	}
	return l.writeUsage([]Usage{u})
}

// writeTimeout bounds a write for which no caller may be waiting any more.
const writeTimeout = 10 * time.Second

// writeUsage writes records in one transaction: they are synced together.
func (l *Ledger) writeUsage(records []Usage) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("ledger: usage: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	for _, u := range records {
		_, err := tx.ExecContext(ctx, l.dialect(`INSERT INTO usage_records (request, tenant, key_id, model, prompt, output, at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (request) DO NOTHING`),
			u.Request, u.Tenant, u.Key, u.Model, u.Prompt, u.Output, micros(u.At))
		if err != nil {
			return fmt.Errorf("ledger: usage of %s: %w", u.Request, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("ledger: usage: %w", err)
	}
	return nil
}

// UsageOf finds the record of a request.
func (l *Ledger) UsageOf(ctx context.Context, request string) (Usage, error) {
	u := Usage{Request: request}
	var at int64
	err := l.row(ctx, `SELECT tenant, key_id, model, prompt, output, at FROM usage_records WHERE request = $1`, request).
		Scan(&u.Tenant, &u.Key, &u.Model, &u.Prompt, &u.Output, &at)
	u.At = timeOf(at)
	return u, found(err, "usage of "+request)
}

// Bound limits how many background responses may wait or be computed, and how
// many bytes the texts of all responses may take, also of ended ones. 0 means
// no limit.
type Bound struct {
	Responses int64
	Bytes     int64
}

// ErrTenantFull and ErrFull are returned if there is no room for a response.
var (
	ErrTenantFull = errors.New("the tenant has as many background responses stored as it may have")
	ErrFull       = errors.New("there is no room for more background responses")
)

// Accept stores a background response that is to be computed.
func (l *Ledger) Accept(ctx context.Context, r Response) error {
	return l.AcceptWithin(ctx, r, Bound{}, Bound{})
}

// acceptLock is the number of the PostgreSQL advisory lock that is held while
// the bounds on responses are checked.
const acceptLock = 0x1a09c47e

// AcceptWithin stores a response if the bounds of its tenant and of all tenants
// leave room.
func (l *Ledger) AcceptWithin(ctx context.Context, r Response, tenant, all Bound) error {
	what := "accept " + r.ID
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("ledger: %s: %w", what, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	if !l.sqlite && (tenant != (Bound{}) || all != (Bound{})) {
		// SQLite has one writer at a time. In PostgreSQL, without the lock, two
		// gateways could both find room for the last response.
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, acceptLock); err != nil {
			return fmt.Errorf("ledger: %s: %w", what, err)
		}
	}
	for _, x := range []struct {
		bound Bound
		of    string
		args  []any
		full  error
	}{{tenant, " AND tenant = $1", []any{r.Tenant}, ErrTenantFull}, {all, "", nil, ErrFull}} {
		var open, bytes int64
		if x.bound.Responses > 0 {
			if err := tx.QueryRowContext(ctx, l.dialect(`SELECT COUNT(*) FROM responses WHERE status IN ('queued', 'in_progress')`+x.of), x.args...).Scan(&open); err != nil {
				return fmt.Errorf("ledger: %s: %w", what, err)
			}
		}
		if x.bound.Bytes > 0 {
			if err := tx.QueryRowContext(ctx, l.dialect(`SELECT COALESCE(SUM(bytes), 0) FROM response_texts WHERE bytes >= 0`+x.of), x.args...).Scan(&bytes); err != nil {
				return fmt.Errorf("ledger: %s: %w", what, err)
			}
		}
		if x.bound.Responses > 0 && open >= x.bound.Responses || x.bound.Bytes > 0 && bytes+int64(len(r.Request)) > x.bound.Bytes {
			return x.full
		}
	}
	if _, err := tx.ExecContext(ctx, l.dialect(`INSERT INTO responses (id, tenant, request, status, result, owner, lease, created) VALUES ($1, $2, '', 'queued', '', '', 0, $3)`), r.ID, r.Tenant, micros(r.Created)); err != nil {
		return fmt.Errorf("ledger: %s: %w", what, err)
	}
	if err := l.addText(ctx, tx, r.ID, r.Tenant, requestPart, r.Request); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("ledger: %s: %w", what, err)
	}
	return nil
}

func (l *Ledger) addText(ctx context.Context, tx *sql.Tx, id, tenant, part, content string) error {
	_, err := tx.ExecContext(ctx, l.dialect(`INSERT INTO response_texts (id, part, tenant, bytes, content) VALUES ($1, $2, $3, $4, $5)`), id, part, tenant, len(content), content)
	if err != nil {
		return fmt.Errorf("ledger: the %s of %s: %w", part, id, err)
	}
	return nil
}

// Claim gives owner the oldest response that nobody works on, for the time of
// the lease. If a gateway dies, its claim ends and another gateway can take the
// response.
func (l *Ledger) Claim(ctx context.Context, owner string, lease time.Duration) (Response, error) {
	now := time.Now()
	row := l.row(ctx, `UPDATE responses SET owner = $1, lease = $2, status = 'in_progress'
		WHERE id = (SELECT id FROM responses WHERE status IN ('queued', 'in_progress') AND lease < $3 ORDER BY created LIMIT 1) AND lease < $3 AND status IN ('queued', 'in_progress')
		RETURNING id, tenant, request, status, result, created`, owner, micros(now.Add(lease)), micros(now))
	return l.scanResponse(ctx, row, "a response to compute")
}

// Renew extends a claim and reports whether it was still held.
func (l *Ledger) Renew(ctx context.Context, id, owner string, lease time.Duration) (bool, error) {
	n, err := l.exec(ctx, "renew "+id, `UPDATE responses SET lease = $1 WHERE id = $2 AND owner = $3 AND status = 'in_progress'`, micros(time.Now().Add(lease)), id, owner)
	return n == 1, err
}

// Release ends a claim, so that another owner can take the response at once.
func (l *Ledger) Release(ctx context.Context, id, owner string) error {
	_, err := l.exec(ctx, "release "+id, `UPDATE responses SET lease = 0, status = 'queued' WHERE id = $1 AND owner = $2 AND status = 'in_progress'`, id, owner)
	return err
}

// Finish stores the answer and deletes the request. It reports false and
// changes nothing if the response was cancelled or has another owner by now.
func (l *Ledger) Finish(ctx context.Context, id, owner, status, result string) (bool, error) {
	what := "finish " + id
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("ledger: %s: %w", what, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	var tenant string
	err = tx.QueryRowContext(ctx, l.dialect(`UPDATE responses SET status = $1, request = '' WHERE id = $2 AND owner = $3 AND status = 'in_progress' RETURNING tenant`), status, id, owner).Scan(&tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ledger: %s: %w", what, err)
	}
	if _, err := tx.ExecContext(ctx, l.dialect(`DELETE FROM response_texts WHERE id = $1`), id); err != nil {
		return false, fmt.Errorf("ledger: %s: %w", what, err)
	}
	if err := l.addText(ctx, tx, id, tenant, resultPart, result); err != nil {
		return false, err
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("ledger: %s: %w", what, err)
	}
	return true, nil
}

// Cancel ends a response that has not ended.
func (l *Ledger) Cancel(ctx context.Context, id, tenant string) error {
	_, err := l.exec(ctx, "cancel "+id, `UPDATE responses SET status = 'cancelled' WHERE id = $1 AND tenant = $2 AND status IN ('queued', 'in_progress')`, id, tenant)
	return err
}

// ResponseOf finds a tenant's response. Another tenant's is not found.
func (l *Ledger) ResponseOf(ctx context.Context, id, tenant string) (Response, error) {
	row := l.row(ctx, `SELECT id, tenant, request, status, result, created FROM responses WHERE id = $1 AND tenant = $2`, id, tenant)
	return l.scanResponse(ctx, row, "response "+id)
}

func (l *Ledger) scanResponse(ctx context.Context, row *sql.Row, what string) (Response, error) {
	var r Response
	var created int64
	err := row.Scan(&r.ID, &r.Tenant, &r.Request, &r.Status, &r.Result, &created)
	r.Created = timeOf(created)
	if err != nil {
		return r, found(err, what)
	}
	rows, err := l.db.QueryContext(ctx, l.dialect(`SELECT part, content FROM response_texts WHERE id = $1`), r.ID)
	if err != nil {
		return r, found(err, what)
	}
	defer rows.Close()
	for rows.Next() {
		var part, content string
		if err := rows.Scan(&part, &content); err != nil {
			return r, found(err, what)
		}
		if part == requestPart {
			r.Request = content
		} else {
			r.Result = content
		}
	}
	return r, found(rows.Err(), what)
}

// Forget deletes a tenant's response.
func (l *Ledger) Forget(ctx context.Context, id, tenant string) error {
	if _, err := l.exec(ctx, "forget "+id, `DELETE FROM responses WHERE id = $1 AND tenant = $2`, id, tenant); err != nil {
		return err
	}
	_, err := l.exec(ctx, "forget "+id, `DELETE FROM response_texts WHERE id = $1 AND tenant = $2`, id, tenant)
	return err
}

// sweptAtOnce is how many rows a sweep removes in one transaction, so that
// others do not wait for it.
const sweptAtOnce = 1000

// Sweep removes responses that have ended and were made before a time, and usage
// records of before another one; the zero time removes none. It returns how many
// rows it removed.
func (l *Ledger) Sweep(ctx context.Context, responses, usage time.Time) (removed int64, err error) {
	sweep := func(table, key, where string, before time.Time) error {
		for !before.IsZero() {
			n, err := l.exec(ctx, "sweep "+table, fmt.Sprintf(`DELETE FROM %s WHERE %s IN (SELECT %s FROM %s WHERE %s < $1 LIMIT %d)`, table, key, key, table, where, sweptAtOnce), micros(before))
			removed += n
			if err != nil || n < sweptAtOnce {
				return err
			}
		}
		return nil
	}
	if err := sweep("responses", "id", "status NOT IN ('queued', 'in_progress') AND created", responses); err != nil {
		return removed, err
	}
	if err := sweep("usage_records", "request", "at", usage); err != nil {
		return removed, err
	}
	// Texts whose response is gone, by the sweep or because a gateway died in
	// between.
	n, err := l.exec(ctx, "sweep response_texts", `DELETE FROM response_texts WHERE id NOT IN (SELECT id FROM responses)`)
	return removed + n, err
}

// Scrub removes deleted data from the write-ahead log. In the pages SQLite
// itself overwrites deleted rows. If the log is in use now or another process
// copies it, Scrub does nothing, and Replicate does it instead.
func (l *Ledger) Scrub(ctx context.Context) error {
	if !l.sqlite {
		return nil // PostgreSQL recycles its log by itself
	}
	c, err := l.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("ledger: scrub: %w", err)
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, "PRAGMA busy_timeout = 50"); err != nil {
		return fmt.Errorf("ledger: scrub: %w", err)
	}
	defer func() { _, _ = c.ExecContext(context.WithoutCancel(ctx), "PRAGMA busy_timeout = 10000") }()
	var busy, log, moved int64
	if err := c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &moved); err != nil {
		return fmt.Errorf("ledger: scrub: %w", err)
	}
	return nil
}

// AddConfiguration stores the next version of the configuration and returns its
// number.
func (l *Ledger) AddConfiguration(ctx context.Context, content string) (version int64, err error) {
	err = l.row(ctx, `INSERT INTO configurations (version, content, at) VALUES ((SELECT COALESCE(MAX(version), 0) + 1 FROM configurations), $1, $2) RETURNING version`,
		content, micros(time.Now())).Scan(&version)
	return version, found(err, "add a configuration")
}

// Configuration is the newest configuration.
func (l *Ledger) Configuration(ctx context.Context) (version int64, content string, err error) {
	err = l.row(ctx, `SELECT version, content FROM configurations ORDER BY version DESC LIMIT 1`).Scan(&version, &content)
	return version, content, found(err, "configuration")
}

// SetModel stores a version of a model, or its new status. A version always has
// the same file. When a version goes live, the previous live one is retired.
func (l *Ledger) SetModel(ctx context.Context, m Model) error {
	what := "model " + m.Name + " " + m.Version
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("ledger: %s: %w", what, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	if m.Status == "live" {
		if _, err := tx.ExecContext(ctx, l.dialect(`UPDATE models SET status = 'retired', at = $1 WHERE name = $2 AND version <> $3 AND status = 'live'`), micros(m.At), m.Name, m.Version); err != nil {
			return fmt.Errorf("ledger: %s: %w", what, err)
		}
	}
	res, err := tx.ExecContext(ctx, l.dialect(`INSERT INTO models (name, version, sha256, status, at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (name, version) DO UPDATE SET status = excluded.status, at = excluded.at WHERE models.sha256 = excluded.sha256`), m.Name, m.Version, m.SHA256, m.Status, micros(m.At))
	if err != nil {
		return fmt.Errorf("ledger: %s: %w", what, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("%s is registered with another file; give another one another version", what), err)
	}
	return tx.Commit()
}

// Models are all versions, the newest change first.
func (l *Ledger) Models(ctx context.Context) (all []Model, err error) {
	rows, err := l.db.QueryContext(ctx, `SELECT name, version, sha256, status, at FROM models ORDER BY at DESC, name, status`)
	if err != nil {
		return nil, fmt.Errorf("ledger: models: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var m Model
		var at int64
		if err := rows.Scan(&m.Name, &m.Version, &m.SHA256, &m.Status, &at); err != nil {
			return nil, fmt.Errorf("ledger: models: %w", err)
		}
		m.At = timeOf(at)
		all = append(all, m)
	}
	return all, rows.Err()
}

// ModelOf finds a version of a model.
func (l *Ledger) ModelOf(ctx context.Context, name, version string) (Model, error) {
	m := Model{Name: name, Version: version}
	var at int64
	err := l.row(ctx, `SELECT sha256, status, at FROM models WHERE name = $1 AND version = $2`, name, version).Scan(&m.SHA256, &m.Status, &at)
	m.At = timeOf(at)
	return m, found(err, "model "+name+" "+version)
}

// Shares is the record with which the gateways of this ledger divide their
// common limits, and its version. The version is 0 before the first.
func (l *Ledger) Shares(ctx context.Context) (version int64, content string, err error) {
	err = l.row(ctx, `SELECT version, content FROM shares WHERE id = 1`).Scan(&version, &content)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, "", nil
	}
	return version, content, found(err, "shares")
}

// SetShares writes the version after that one. It reports false and changes
// nothing if another gateway was first. So a gateway that hangs between the two
// calls holds no lock.
func (l *Ledger) SetShares(ctx context.Context, version int64, content string) (bool, error) {
	n, err := l.exec(ctx, "share limits", `INSERT INTO shares (id, version, content) VALUES (1, $1, $2)
		ON CONFLICT (id) DO UPDATE SET version = excluded.version, content = excluded.content WHERE shares.version = $3`, version+1, content, version)
	return n == 1, err
}

// micros is the stored form of a time; 0 means none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}
