// Command chat talks on the terminal, and goes on where it was left: the whole conversation, as the model has read it,
// is kept in a file, so that nothing is read twice.
//
//	go run ./examples/chat conversation
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: chat FILE")
	}
	model, err := photon.LoadFS(models.Stories())
	if err == nil {
		err = chat(model, os.Args[1], os.Stdin, os.Stdout)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// chat answers each line of in, and keeps the conversation in a file.
func chat(model *photon.Model, file string, in io.Reader, out io.Writer) error {
	session, err := restore(model, file, photon.MaxTokens(60), photon.Seed(1), photon.Stop("\n"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20) // bytes of a line at most
	for lines.Scan() {
		if err := session.AppendText(ctx, "User: "+lines.Text()+"\nAssistant:"); err != nil {
			return err
		}
		var why photon.StopReason
		for token, err := range session.Generate(ctx) {
			if err != nil {
				return err
			}
			fmt.Fprint(out, token.Text)
			why = token.Stop
		}
		if why != photon.StopString { // the line is still open
			if err := session.AppendText(ctx, "\n"); err != nil {
				return err
			}
		}
		fmt.Fprintln(out)
		if err := save(session, file); err != nil {
			return err
		}
	}
	return lines.Err()
}

// restore reads a session, or begins one where there is none, or one of another model.
func restore(model *photon.Model, file string, opts ...photon.Option) (*photon.Session, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return model.NewSession(opts...), nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	session, err := model.ReadSession(f, opts...)
	if errors.Is(err, photon.ErrMismatch) {
		fmt.Fprintln(os.Stderr, "the conversation is another model's: beginning anew")
		return model.NewSession(opts...), nil
	}
	return session, err
}

// save writes a session in a file's place when all of it is written.
func save(session *photon.Session, file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".chat*")
	if err != nil {
		return err
	}
	_, err = session.WriteTo(f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
