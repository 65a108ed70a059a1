package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/photon-lm/photon"
)

const quantizeNotes = `
Writes the model in DIR to OUT, with int8 or int4 weights in the forms of docs/formats.md. With a FILE of text, prints
how well both predict it, as photon score does.
`

func setupQuantize(f *flag.FlagSet) func(c *console, args []string) error {
	form := photon.Int8
	f.Func("weights", "`form` to write: int8 or int4 (default int8)",
		choice(&form, map[string]photon.WeightType{"int8": photon.Int8, "int4": photon.Int4}))
	f.Usage = func() { fmt.Fprint(f.Output(), quantizeNotes) }
	return func(c *console, args []string) error {
		if len(args) != 2 && len(args) != 3 {
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
		ctx := interruptible()
		if err := quantize(ctx, c, args[1], files, form); err != nil {
			return modelError{fmt.Errorf("%s: %w", args[0], err)}
		}
		for _, m := range []*modelFlags{&from, &to} {
			files, err := m.files()
			if err != nil {
				return err
			}
			info, err := photon.Inspect(files)
			if err != nil {
				return modelError{fmt.Errorf("%s: %w", m.dir, err)}
			}
			fmt.Fprintf(c.stdout, "%-12s %s of weights\n", m.dir, size(info.WeightBytes))
		}
		if len(args) < 3 {
			return nil
		}
		before, err := scoreFile(ctx, c, &from, args[2])
		if err != nil {
			return err
		}
		after, err := scoreFile(ctx, c, &to, args[2])
		if err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "bits per byte of %s: %.4f as stored, %.4f held %v (%+.2f %%)\n", args[2], before.BitsPerByte,
			after.BitsPerByte, form, 100*(after.BitsPerByte/before.BitsPerByte-1))
		return nil
	}
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
