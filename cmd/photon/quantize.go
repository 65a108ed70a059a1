package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/photon-lm/photon"
)

const quantizeNotes = `
Writes the model in DIR to OUT, with int8 or int4 weights in the forms of docs/formats.md. OUT is a directory that is
empty or not there yet. With a FILE of text, prints how well both predict it, as photon score does.
`

func setupQuantize(f *flag.FlagSet) func(c *console, args []string) error {
	form := photon.Int8
	f.Func("weights", "`form` to write: int8 or int4 (default int8)",
		choice(&form, map[string]photon.WeightType{"int8": photon.Int8, "int4": photon.Int4}))
	f.Usage = func() { fmt.Fprint(f.Output(), quantizeNotes) }
	return func(c *console, args []string) error {
		if len(args) != 2 && len(args) != 3 || slices.Contains(args, "") {
			return usageError{fmt.Errorf("wants a model's directory and the one to write, and may have a file of " +
				"text, as in photon quantize DIR OUT FILE")}
		}
		from, to := modelFlags{dir: args[0]}, modelFlags{dir: args[1], weights: form}
		files, err := from.files()
		if err != nil {
			return err
		}
		if a, err := os.Stat(args[0]); err == nil {
			if b, err := os.Stat(args[1]); err == nil && os.SameFile(a, b) {
				return usageError{fmt.Errorf("%s and %s are one directory: give another to write to", args[0], args[1])}
			}
		}
		if len(args) == 3 { // what can be wrong with it, before all the work
			text, err := openRegular(args[2])
			if err != nil {
				return fmt.Errorf("%w: give a file of text", err)
			}
			text.Close()
			if _, err := fs.Lstat(files, "tokenizer.json"); err != nil { // loading says what else is wrong with it
				return modelError{fmt.Errorf("%s has no tokenizer.json to read %s with: leave that out: %w",
					args[0], args[2], photon.ErrUnsupported)}
			}
		}
		before, err := from.inspect(files)
		if err != nil {
			return err
		}
		ctx := interruptible()
		var scored *score
		if len(args) == 3 { // ahead of the work, for the text may be none
			if scored, err = scoreFile(ctx, c, &from, args[2]); err != nil {
				return err
			}
		}
		if err := quantize(ctx, c, args[1], files, form); err != nil {
			err = fmt.Errorf("%s to %s: %w", args[0], args[1], err)
			if errors.Is(err, fs.ErrNotExist) { // of OUT: the model has been looked at
				return err
			}
			return modelError{err}
		}
		if files, err = to.files(); err != nil {
			return err
		}
		after, err := to.inspect(files)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "%-12s %s of weights\n", args[0], size(before.WeightBytes))
		fmt.Fprintf(c.stdout, "%-12s %s of weights\n", args[1], size(after.WeightBytes))
		if len(args) == 3 {
			return compareScores(ctx, c, scored, &to, args[2])
		}
		return nil
	}
}

// compareScores says how well what was made of a model predicts a text that the model predicts so.
func compareScores(ctx context.Context, c *console, before *score, to *modelFlags, name string) error {
	after, err := scoreFile(ctx, c, to, name)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "bits per byte of %s: %.4f as stored, %.4f held %v (%+.2f %%)\n", name, before.BitsPerByte,
		after.BitsPerByte, to.weights, 100*(after.BitsPerByte/before.BitsPerByte-1))
	return nil
}

func (m *modelFlags) inspect(files fs.FS) (photon.Info, error) {
	info, err := photon.Inspect(files)
	if err != nil {
		err = modelError{fmt.Errorf("%s: %w", m.name(), err)}
	}
	return info, err
}

func quantize(ctx context.Context, c *console, dir string, files fs.FS, form photon.WeightType) error {
	p := c.progress()
	defer p.done()
	defer p.during("quantizing")()
	return photon.Quantize(ctx, dir, files, form)
}

func scoreFile(ctx context.Context, c *console, model *modelFlags, name string) (*score, error) {
	text, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: give a file of text", err)
	}
	defer text.Close()
	m, err := model.loadForText(ctx, c)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	p := c.progress()
	defer p.done()
	defer p.during("scoring " + name)()
	s, err := scoreText(ctx, m, text, windows{}, false, io.Discard)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}
