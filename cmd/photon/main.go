// Command photon runs PHOTON language models: it writes, scores, shows, checks, measures and makes them.
//
//	photon run "Once upon a time"
//	photon help
//
// Exit codes: 0 done, 1 failed while running, 2 wrong usage, 3 model not found, 4 model invalid, 130 interrupted, 143
// or 129 ended by SIGTERM or SIGHUP; serve ends with 0 by any of them.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"github.com/photon-lm/photon"
)

const (
	exitFailed       = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitInvalidModel = 4
	exitInterrupted  = 130
)

// endings are the signals that end what a verb does, and the exit codes of that.
var endings = map[os.Signal]int{os.Interrupt: exitInterrupted, syscall.SIGTERM: 143}

// A verb is what photon can be told to do.
type verb struct {
	name, arguments, summary string
	// setup declares the verb's flags, and returns what runs once they are parsed.
	setup func(f *flag.FlagSet) func(c *console, args []string) error
}

var verbs = []verb{
	{"run", "[flags] [prompt | -]", "continue a text", setupRun},
	{"chat", "[flags]", "talk with a model on the terminal", setupChat},
	{"show", "[flags]", "describe a model: architecture, parameters, bytes", setupShow},
	{"score", "[flags] FILE | -", "measure how well a model predicts a text", setupScore},
	{"verify", "[flags] DIR | FILE.gguf", "check a model's files, weights and arithmetic", setupVerify},
	{"batch", "[flags] IN.jsonl OUT.jsonl", "continue or score the lines of a file", setupBatch},
	{"serve", "[flags]", "answer HTTP requests, as OpenAI's API does", setupServe},
	{"bench", "[flags]", "measure how fast a model reads and writes", setupBench},
	{"quantize", "[flags] DIR OUT [FILE]", "write a model with int8 or int4 weights", setupQuantize},
	{"init", "-preset NAME [flags] DIR", "write a model with random weights, for benchmarks", setupInit},
}

// console is where a verb reads and writes.
type console struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

func main() {
	stdout := &output{w: os.Stdout}
	c := &console{os.Stdin, stdout, os.Stderr}
	err := c.dispatch(os.Args[1:])
	if err == nil {
		err = stdout.err
	}
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errShown) {
		fmt.Fprintln(c.stderr, "photon:", message(err))
	}
	os.Exit(exitCode(err))
}

// message is an error's text without the names of the library's packages: the program's and the verb's are the same.
// What may steer a terminal is escaped, wherever in a file or a file's name it comes from.
func message(err error) string {
	text := strings.TrimPrefix(err.Error(), "photon: ")
	text = strings.NewReplacer(": photon: ", ": ", ": serve: ", ": ").Replace(text)
	var shown strings.Builder
	for _, c := range text {
		if c == '\n' || unicode.IsPrint(c) {
			shown.WriteRune(c)
		} else {
			shown.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
		}
	}
	return shown.String()
}

func (c *console) dispatch(args []string) error {
	name := "help"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	} else {
		c.help(c.stderr)
		return usageError{errShown}
	}
	switch name {
	case "help", "-h", "-help", "--help":
		if len(args) == 0 {
			c.help(c.stdout)
			return nil
		}
		if len(args) > 1 {
			return usageError{fmt.Errorf("help takes one verb: what is %q?", args[1])}
		}
		if name = args[0]; name == "-h" {
			name = "help"
		}
		if name == "help" || name == "version" {
			fmt.Fprintf(c.stdout, "photon %s\n\n%s.\n", name, map[string]string{
				"help":    "Print the verbs, or with a verb behind it that verb's flags",
				"version": "Print the version, and what the program was built with",
			}[name])
			return nil
		}
		args = []string{"-h"}
	case "version", "-version", "--version":
		if len(args) > 0 {
			return usageError{fmt.Errorf("version takes nothing: what is %q?", args[0])}
		}
		fmt.Fprintln(c.stdout, version())
		return nil
	}
	for _, v := range verbs {
		if v.name == name {
			return c.run(v, args)
		}
	}
	return usageError{fmt.Errorf("there is no verb %q: see photon help", name)}
}

func (c *console) run(v verb, args []string) error {
	f := flag.NewFlagSet(v.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = nil // or it prints the flags
	run := v.setup(f)
	args, err := parse(f, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(c.stdout, "photon %s %s\n\n%s.\n\n", v.name, v.arguments, strings.ToUpper(v.summary[:1])+v.summary[1:])
		f.SetOutput(c.stdout)
		f.PrintDefaults()
		if f.Usage != nil { // what a verb says below its flags
			f.Usage()
		}
		return nil
	case err != nil:
		return usageError{fmt.Errorf("%s: %w: see photon help %s", v.name, err, v.name)}
	}
	if err := run(c, args); err != nil {
		return fmt.Errorf("%s: %w", v.name, err)
	}
	return nil
}

// parse reads flags wherever they stand among the arguments; after -- everything is an argument.
func parse(f *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		if n := len(args) - f.NArg(); n > 0 && args[n-1] == "--" || f.NArg() == 0 {
			return append(rest, f.Args()...), nil
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
}

func (c *console) help(w io.Writer) {
	fmt.Fprint(w, "photon runs PHOTON language models.\n\n")
	for _, v := range verbs {
		fmt.Fprintf(w, "  photon %-34s %s\n", v.name+" "+v.arguments, v.summary)
	}
	fmt.Fprintf(w, "  photon %-34s %s\n", "version", "print the version")
	fmt.Fprintf(w, "  photon %-34s %s\n", "help [verb]", "print this, or a verb's flags")
	fmt.Fprint(w, `
Without -model, run, chat, show, score, batch, serve and bench use the model that is part of this program.
Exit codes: 0 done, 1 failed while running, 2 wrong usage, 3 model not found, 4 model invalid, 130 interrupted,
143 or 129 ended by SIGTERM or SIGHUP; serve ends with 0 by any of them.
`)
}

func version() string {
	text, revision := "photon", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		text += " " + info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && !strings.Contains(info.Main.Version, s.Value[:min(12, len(s.Value))]) {
				revision = " " + s.Value
			}
		}
	}
	return fmt.Sprintf("%s%s %s %s/%s", text, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// A usageError is the caller's mistake, a modelError the model's.
type (
	usageError struct{ error }
	modelError struct{ error }
)

func (e usageError) Unwrap() error { return e.error }
func (e modelError) Unwrap() error { return e.error }

// errShown says that what is wrong has been printed already.
var errShown = errors.New("see above")

func exitCode(err error) int {
	var usage usageError
	var model modelError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return cmp.Or(int(endedWith.Load()), exitInterrupted)
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &model) && errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case errors.As(err, &model) &&
		isAny(err, photon.ErrCorrupt, photon.ErrMismatch, photon.ErrUnsupported, photon.ErrInvalid):
		return exitInvalidModel
	case errors.Is(err, photon.ErrInvalid):
		return exitUsage
	}
	return exitFailed
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// endedWith is the exit code of the signal that came.
var endedWith atomic.Int32

// interruptible returns a context that the first Ctrl-C, SIGTERM or SIGHUP cancels; one that comes later ends the
// program at once.
func interruptible() context.Context { return until(endings) }

func until(endings map[os.Signal]int) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, slices.Collect(maps.Keys(endings))...)
	go func() {
		endedWith.Store(int32(endings[<-signals]))
		cancel()
		time.Sleep(time.Second / 4) // timeout(1) sends its signal twice
		signal.Stop(signals)
	}()
	return ctx
}
