package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/photon-lm/photon"
)

const chatHelp = `/save FILE   keep the conversation in a file
/load FILE   go on with one that was kept
/reset       begin anew
/help        this
Ctrl-C stops the text, Ctrl-D ends the program.
`

const chatNotes = `From a pipe or a file, the first line that cannot be done ends the program; its exit code says why.
`

// chat is a conversation on the terminal.
type chat struct {
	*console
	model    *photon.Model
	template *chatTemplate
	options  []photon.Option
	session  *photon.Session
	teletype bool           // somebody types: mistakes are told, and the conversation goes on
	ctrlC    chan os.Signal // while the program waits for a line, or writes
}

func setupChat(f *flag.FlagSet) func(c *console, args []string) error {
	var model modelFlags
	var sampling samplingFlags
	model.declare(f)
	sampling.declare(f)
	f.Usage = func() { fmt.Fprint(f.Output(), "\nLines are said to the model, but for these:\n"+chatHelp+chatNotes) }
	return func(c *console, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("does not know what to do with %q: it reads what you say from standard input", args[0])}
		}
		files, err := model.files()
		if err != nil {
			return err
		}
		template, err := findTemplate(files)
		if err != nil {
			return fmt.Errorf("%s: %w", model.name(), err)
		}
		others := maps.Clone(endings)
		delete(others, os.Interrupt) // which stops the text, once the model is there
		ctx := until(others)
		loading, stop := signal.NotifyContext(ctx, os.Interrupt)
		m, err := model.loadToWrite(loading, c)
		stop()
		if err != nil {
			return err
		}
		defer m.Close()
		sampling.stop = append(sampling.stop, template.stop)
		t := &chat{console: c, model: m, template: template, options: sampling.options(), teletype: isTerminal(c.stdin), ctrlC: make(chan os.Signal, 1)}
		t.session = m.NewSession(t.options...)
		if err := t.session.Append(ctx); err != nil { // a bad option
			return err
		}
		return t.loop(ctx)
	}
}

// loop takes line after line until the input or ctx ends.
func (t *chat) loop(ctx context.Context) error {
	signal.Notify(t.ctrlC, os.Interrupt)
	defer signal.Stop(t.ctrlC)
	lines, quit := make(chan string), make(chan struct{})
	defer close(quit)
	var readErr error // once lines is closed
	go func() {
		defer close(lines)
		in := bufio.NewReader(t.stdin)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				select {
				case lines <- line:
				case <-quit:
					return
				}
			}
			if err != nil {
				if err != io.EOF {
					readErr = fmt.Errorf("reading standard input: %w", err)
				}
				return
			}
		}
	}()
	if t.teletype {
		fmt.Fprint(t.stderr, chatHelp)
	}
	for {
		if t.teletype {
			fmt.Fprint(t.stderr, "> ")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.ctrlC:
			if !t.teletype {
				return context.Canceled
			}
			fmt.Fprintln(t.stderr, "\nCtrl-D ends the program, /help tells more.")
		case line, ok := <-lines:
			if !ok {
				if t.teletype {
					fmt.Fprintln(t.stderr)
				}
				return readErr
			}
			err := t.take(ctx, strings.TrimSpace(line))
			if failed := new(outputError); errors.As(err, failed) || err != nil && !t.teletype {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				fmt.Fprintln(t.stderr, "photon:", message(err))
			}
		}
	}
}

// take does what one line asks for.
func (t *chat) take(ctx context.Context, line string) error {
	command, file := line, ""
	if i := strings.IndexFunc(line, unicode.IsSpace); i >= 0 {
		command, file = line[:i], strings.TrimSpace(line[i:])
	}
	switch {
	case line == "":
		return nil
	case !utf8.ValidString(line):
		return usageError{errors.New("the line is not valid UTF-8: convert it first")}
	case !strings.HasPrefix(line, "/"):
		return t.say(ctx, line)
	case (command == "/save" || command == "/load") && file == "":
		return usageError{fmt.Errorf("%s wants a file", command)}
	case command == "/save":
		return t.save(file)
	case command == "/load":
		return t.load(file)
	case line == "/reset":
		t.session = t.model.NewSession(t.options...)
		return nil
	case line == "/help":
		fmt.Fprint(t.stderr, chatHelp)
		return nil
	}
	return usageError{fmt.Errorf("does not know %.40q: see /help", line)}
}

// say has the model read a turn and write its own. Ctrl-C stops either: what has been written stays part of the
// conversation, and a turn that was not read to its end does not.
func (t *chat) say(ctx context.Context, text string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-t.ctrlC:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-watched }()

	before := t.session.Fork()
	if err := t.appendIDs(ctx, t.session, t.template.turn(t.model, text, t.session.Len() == 0)); err != nil {
		t.session = before
		if errors.Is(err, context.Canceled) && t.teletype {
			fmt.Fprintln(t.stderr)
			return nil
		}
		return err
	}
	asked, said := t.session.Fork(), strings.Builder{}
	var err error
	for token, e := range t.session.Generate(ctx) {
		shown := token.Text
		if said.Len() == 0 {
			shown = strings.TrimLeft(shown, " ")
		}
		said.WriteString(token.Text)
		_, e2 := io.WriteString(t.stdout, shown)
		if err = cmp.Or(e, e2); err != nil {
			break
		}
		if token.Stop == photon.StopString { // its tokens are no part of the conversation
			err = asked.Append(ctx, t.model.Tokenizer().EncodeText(said.String())...)
			t.session = asked
		}
	}
	_, e := fmt.Fprintln(t.stdout)
	if errors.Is(err, context.Canceled) && t.teletype {
		err = nil
	}
	return cmp.Or(err, e)
}

// save writes beside the file and renames: at every moment the name stands for the old conversation or the new one.
func (t *chat) save(file string) (err error) {
	name, err := replaceable(file)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.tmp")
	if err != nil {
		return ofFile(file, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := t.session.WriteTo(f); err != nil {
		return err
	}
	if err := cmp.Or(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	fmt.Fprintf(t.stderr, "saved %s tokens\n", count(t.session.Len()))
	return nil
}

func (t *chat) load(name string) error {
	f, err := openRegular(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := t.model.ReadSession(f, t.options...)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	t.session = s
	fmt.Fprintf(t.stderr, "loaded %s tokens\n", count(s.Len()))
	return nil
}
