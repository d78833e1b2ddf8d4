// Command keyroll holds the root keys of a service's tenants and rolls them.
// This package is flags, wiring and printing, nothing else: every command but
// serve, demo, bench, database and an offline verify talks to a running server
// through the client package.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/benchcommand"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/terminal"
)

// commands is the command line.
type commands struct {
	Serve        serveCommand         `cmd:"" help:"Run the whole service: vaults, API, rolls."`
	Wait         waitCommand          `cmd:"" help:"Wait until the server of a data folder is ready."`
	Demo         demoCommand          `cmd:"" help:"Run the documented procedure on real mail and files, and prove that nothing was changed or lost."`
	Shell        shellCommand         `cmd:"" help:"Run cmdlets in the syntax of the Customer Key documentation."`
	Mailbox      mailboxCommand       `cmd:"" help:"Mailboxes: create, import, export, list, show, state."`
	Site         siteCommand          `cmd:"" help:"Sites: create, put, get, ls, list, show."`
	Workload     workloadCommand      `cmd:"" help:"Workload stores: put, get, list."`
	Backup       backupCommand        `cmd:"" help:"Backups of mailboxes and sites: create, list, restore, expire."`
	Abandon      abandonCommand       `cmd:"" help:"Delete a mailbox, a site or a workload store whose key page is damaged beyond repair."`
	Policy       policyCommand        `cmd:"" help:"Policies: list, show, refresh, update, leave, recover."`
	Roll         rollCommand          `cmd:"" help:"Rolls: list, show, watch, pause, resume, cancel."`
	Tenant       tenantCommand        `cmd:"" help:"Tenants: create, list, show."`
	Geo          geoCommand           `cmd:"" help:"Geos, the parts of a tenant that have a site policy each: create, list."`
	Purge        purgeCommand         `cmd:"" help:"Purges: request, approver, approve, status."`
	Token        tokenCommand         `cmd:"" help:"Tokens of people and programs, with roles: create, list, rotate, revoke."`
	Whoami       whoAmICommand        `cmd:"" help:"Show whose token is used, and its roles."`
	Application  applicationCommand   `cmd:"" help:"Programs that use vaults, and their secrets: create, list, remove, secret."`
	Approval     approvalCommand      `cmd:"" help:"Acts that need a second person, and who approves them."`
	Availability availabilityCommand  `cmd:"" help:"Availability keys, the root keys that the service holds: roll."`
	Key          keyCommand           `cmd:"" help:"List what each key version still protects (the ledger)."`
	Database     databaseCommand      `cmd:"" help:"The database: move it from SQLite to PostgreSQL."`
	Blobs        blobsCommand         `cmd:"" help:"The blob store: collect orphans."`
	Verify       verifyCommand        `cmd:"" help:"Decrypt every wrapped key and read every item; report all that cannot be decrypted."`
	Bench        benchcommand.Command `cmd:"" help:"Measure a roll and, in the same run, the upper bounds of its speed."`

	Version versionCommand `cmd:"" help:"Show the version that this binary was built from."`

	Output string `name:"output" short:"o" enum:"text,json" default:"text" help:"Output: text, or json (JSON lines for lists, one object for bench and verify; nothing else on standard output)."`
}

// env is what a command runs in.
type env struct {
	context.Context
	terminal.Terminal
}

func main() {
	syscall.Umask(0o077)                                          // files that keyroll writes are readable by their owner only
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) // memory holds keys: no core is dumped
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal terminates the process if it does not stop by itself
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command line and returns the exit status: 0 done, 1 refused or
// failed, 2 misuse.
func run(ctx context.Context, args []string, in *os.File, out, errOut io.Writer) (status int) {
	if err := checkText(args, os.Environ()); err != nil {
		return report(ctx, errOut, err)
	}
	if len(args) == 1 && args[0] == "--version" { // elsewhere it is that of a key
		args = []string{"version"}
	}
	var c commands
	parser, err := newParser(&c, out, errOut, kong.Exit(func(status int) { panic(exit(status)) }))
	if err != nil {
		panic(err) // the command line is wrong in the source
	}
	defer func() {
		r := recover()
		if code, ok := r.(exit); ok {
			status = int(code)
		} else if r != nil {
			panic(r)
		}
	}()
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(errOut, "keyroll: %s\nhint: keyroll --help lists the commands, keyroll COMMAND --help the flags of one\n", terminal.EscapeLines(err.Error()))
		return 2
	}
	e := &env{ctx, terminal.Terminal{In: in, Out: out, ErrOut: errOut, JSON: c.Output == "json"}}
	if err := parsed.Run(e, &benchcommand.Program{Context: ctx, Terminal: e.Terminal, Script: quietly, Client: localClient, Data: defaultData()}); err != nil {
		return report(ctx, errOut, err)
	}
	return 0
}

// checkText refuses arguments and settings that are not UTF-8. The JSON encoder
// replaces every invalid byte by U+FFFD, so that two different names of files
// would become one.
func checkText(args, environment []string) error {
	for i, arg := range args {
		if !utf8.ValidString(arg) {
			return fail.New(api.InvalidArgument, "argument %d is not UTF-8: %.300q", i+1, arg).
				WithHint("use a UTF-8 name; for a local file with another name, redirect it to standard input and give - as the file")
		}
	}
	for _, variable := range environment {
		if strings.HasPrefix(variable, "KEYROLL_") && !utf8.ValidString(variable) {
			return fail.New(api.InvalidArgument, "environment variable %.300q is not UTF-8", variable)
		}
	}
	return nil
}

// newParser returns a parser of the command line into c.
func newParser(c *commands, out, errOut io.Writer, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(c, append(options,
		kong.Name("keyroll"),
		kong.Description("Customer-held root keys for mail and files: roll them, see what still depends on an old one, revoke."),
		kong.Writers(out, errOut),
		kong.Vars{"data": defaultData(), "pageSlots": strconv.Itoa(node.DefaultPageSlots), "vaultDomain": node.DefaultVaultDomain,
			"availabilityRollEvery": fmt.Sprintf("%.0fh", node.DefaultAvailabilityRollEvery.Hours())},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, Summary: true}),
	)...)
}

// exit is the status with which run ends after kong printed help.
type exit int

// report prints an error with its code and hint and returns its exit status.
func report(ctx context.Context, w io.Writer, err error) int {
	var silent statusError
	if errors.As(err, &silent) {
		return int(silent)
	}
	if ctx.Err() != nil {
		fmt.Fprint(w, "keyroll: interrupted")
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.Cause(ctx)) {
			fmt.Fprintf(w, ": %s", terminal.EscapeLines(err.Error()))
		}
		fmt.Fprintln(w)
		var f *fail.Error
		if errors.As(err, &f) {
			printHint(w, f.Hint)
		}
		return 1
	}
	var p *api.Problem
	var f *fail.Error
	code, hint := api.Internal, ""
	switch {
	case errors.As(err, &p):
		code, hint = p.Code, p.Hint
		if code == api.Internal && p.Request != "" {
			hint = "request " + p.Request
		}
	case errors.As(err, &f):
		code, hint = f.Code, f.Hint
	}
	text := terminal.EscapeLines(err.Error())
	if code == api.Internal {
		fmt.Fprintf(w, "keyroll: %s\n", text)
	} else {
		fmt.Fprintf(w, "keyroll: %s [%s]\n", text, code)
	}
	printHint(w, hint)
	return fail.Lookup(code).Exit
}

// printHint prints a hint, if there is one.
func printHint(w io.Writer, hint string) {
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", terminal.EscapeLines(hint))
	}
}

// list prints items: as JSON lines, or as a table with the given columns.
func list[T any](e *env, items []T, columns string, row func(T) []any) error {
	return terminal.Rows(e.Terminal, columns, row)(items)
}

// listPages prints each page of a list as soon as it is read.
func listPages[T any](e *env, columns string, row func(T) []any, read func(api.PageInput) (api.List[T], error)) error {
	return client.EachPage(read, terminal.Rows(e.Terminal, columns, row))
}

// statusError is an exit status whose reason has already been printed.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }
