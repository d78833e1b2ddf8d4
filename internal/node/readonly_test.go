package node_test

import (
	"context"
	"database/sql"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store/storetest"
)

// PostgreSQL that accepts no writes, such as a standby after a wrong failover, is
// reported as read-only; once it accepts writes again the same requests work, without
// a restart, and rolls continue.
func TestAReadOnlyPostgreSQLIsReportedAndTheNodeRecovers(t *testing.T) {
	address := storetest.PostgresURL(t)
	w := &damagedNode{World: nodetest.Start(t, node.Options{Database: address, Logger: slog.New(slog.DiscardHandler)}), t: t}
	w.StageMail()
	w.Mailbox(alice, nodetest.MailboxPolicy)
	w.Import(alice, letter)
	operator, err := sql.Open("pgx", address)
	w.requireNoError(err)
	defer operator.Close()
	operator.SetMaxOpenConns(1)
	u, err := url.Parse(address)
	w.requireNoError(err)
	// change affects new sessions; it ends all others before it returns, as a failover to
	// another server would.
	change := func(to string) {
		t.Helper()
		for _, statement := range []string{`ALTER DATABASE ` + strings.TrimPrefix(u.Path, "/") + to,
			`SELECT pg_terminate_backend(pid, 600000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`} {
			_, err := operator.ExecContext(t.Context(), statement)
			w.requireNoError(err)
		}
	}
	// answer retries while old connections are found to be closed.
	answer := func(ask func() error) (err error) {
		for range 100 {
			if err = ask(); codeOf(err) != api.Unavailable {
				break
			}
		}
		return err
	}
	imported := func() error { return importMail(t.Context(), w.World, alice, letter) }

	change(` SET default_transaction_read_only = on`)
	refused(t, "import", answer(imported), api.ReadOnly, "database", "does not accept writes")
	refused(t, "export", answer(func() error { return ignore(exportMail(t.Context(), w.World, alice)) }), api.ReadOnly)

	change(` RESET default_transaction_read_only`)
	w.requireNoError(answer(imported))
	if got := w.Export(alice); got != letter+letter {
		t.Errorf("alice has %q", got)
	}
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)
	w.VerifyClean()
}

// A data folder on a read-only file system is refused at the start with a clear error.
func TestAReadOnlyDataFolderIsRefusedAtTheStart(t *testing.T) {
	if !mayMount(t) {
		return
	}
	disk := smallDisk(t)
	o := node.Options{Data: filepath.Join(disk, "data"), Logger: slog.New(slog.DiscardHandler)}
	w := nodetest.Start(t, o)
	w.Stop()
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("keyroll", disk, "tmpfs", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	n, err := node.Start(context.Background(), o)
	if err == nil {
		n.Close()
	}
	refused(t, "start", err, api.InvalidArgument, disk, "read-only")
	remount(0)
	nodetest.Start(t, o).VerifyClean()
}
