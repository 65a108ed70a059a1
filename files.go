package photon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/photon-lm/photon/internal/regular"
)

// isFileName reports whether a name that a file gives for another is one in the same directory, and can be shown as it
// is.
func isFileName(name string) bool {
	return fs.ValidPath(name) && name != "." && len(name) <= 255 && !strings.ContainsAny(name, `/\:`) &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// A witness is a file system that remembers what each file was when it was first opened.
type witness struct {
	fs.FS
	seen map[string]fs.FileInfo
}

func (w *witness) Open(name string) (fs.File, error) {
	f, err := w.FS.Open(name)
	if err != nil || w.seen[name] != nil {
		return f, err
	}
	if w.seen[name], err = settled(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// settled is what a file is, once it was last written some ticks of the file system's clock ago, of which one takes up
// to 10 ms: what is written within the tick of a write before has the same time. A file that goes on to be written has
// another time in the end.
func settled(f fs.File) (info fs.FileInfo, err error) {
	const ticks = 20 * time.Millisecond
	for range 5 {
		if info, err = f.Stat(); err != nil {
			return nil, err
		}
		age := time.Since(info.ModTime())
		if age < 0 || age >= ticks { // below 0, by another clock
			break
		}
		time.Sleep(ticks - age)
	}
	return info, nil
}

func (w *witness) Stat(name string) (fs.FileInfo, error)  { return fs.Stat(w.FS, name) }
func (w *witness) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(w.FS, name) }
func (w *witness) ReadLink(name string) (string, error)   { return fs.ReadLink(w.FS, name) }
func (w *witness) Glob(pattern string) ([]string, error)  { return fs.Glob(w.FS, pattern) }

// unchanged reports a file that is no longer what it was, as far as its size, time and identity tell: what was read may
// be part of the one and of the other.
func (w *witness) unchanged() error {
	for _, name := range slices.Sorted(maps.Keys(w.seen)) {
		before := w.seen[name]
		now, err := fs.Stat(w.FS, name)
		if err != nil {
			return fmt.Errorf("photon: %s: it was there when loading began: %w", name, err)
		}
		replaced := os.SameFile(before, before) && !os.SameFile(before, now) // of other file systems it is never the same
		if replaced || now.Size() != before.Size() || !now.ModTime().Equal(before.ModTime()) {
			return fmt.Errorf("photon: %s: it was changed while it was read: load it again: %w", name, ErrCorrupt)
		}
	}
	return nil
}

func checkFS(fsys fs.FS) error {
	if fsys == nil {
		return fmt.Errorf("photon: the file system is nil: %w", ErrInvalid)
	}
	return nil
}

// readSmall reads a file of at most limit bytes.
func readSmall(fsys fs.FS, name string, limit int64) ([]byte, error) {
	data, err := regular.Read(fsys, name, limit, ErrCorrupt)
	if err != nil {
		return nil, fmt.Errorf("photon: %s: %w", name, err)
	}
	return data, nil
}

// ended is the error of a context that has ended. It knows by itself that a deadline has passed: the timer that tells
// the context may not get to run. Of no context at all it makes an error of the caller's.
func ended(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("photon: the context is nil: give context.Background(), or one that ends: %w", ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// deadline is the end of a context for loops of many short turns, which look at it now and then.
type deadline struct {
	ctx   context.Context
	turns int
}

// passed is called every turn, and is the context's error once that has ended.
func (d *deadline) passed() error {
	if d == nil {
		return nil
	}
	if d.turns++; d.turns%256 != 0 {
		return nil
	}
	return ended(d.ctx)
}

// contextReader reads, a little at a time, until ctx ends; contextWriter writes until then.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := ended(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(b[:min(len(b), 1<<20)])
}

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(b []byte) (int, error) {
	if err := ended(c.ctx); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}

// Files returns the files of the model at path, for LoadFS, Inspect and CheckWeights: those of a directory, or those
// that a GGUF file stands for, which are itself and, where it has one, chat_template.jinja. Nothing is read yet: what
// is not there matches fs.ErrNotExist, a file of another name ErrInvalid, a device or a pipe ErrCorrupt. It may be
// called from several goroutines.
func Files(path string) (fs.FS, error) {
	info, err := os.Stat(path)
	switch {
	case path == "" || strings.ContainsRune(path, 0):
		return nil, fmt.Errorf("photon: model: no file can have the name %.80q: give a model's directory or "+
			"%s file: %w", path, ggufExtension, ErrInvalid)
	case err != nil:
		return nil, fmt.Errorf("photon: model: %w", err)
	case info.IsDir():
		return regular.Dir(path), nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("photon: %s: %w", path, regular.Check(info, ErrCorrupt))
	case !strings.HasSuffix(path, ggufExtension):
		return nil, fmt.Errorf("photon: %s is a file: give the directory that holds config.json and model.safetensors, "+
			"or a %s file: %w", path, ggufExtension, ErrInvalid)
	}
	return ggufFiles{regular.Dir(filepath.Dir(path)), filepath.Base(path)}, nil
}

const templateFile = "chat_template.jinja"

// ggufFiles is a directory in which one GGUF file is all there is.
type ggufFiles struct {
	dir  regular.Dir
	name string
}

func absent(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

func (g ggufFiles) Open(name string) (fs.File, error) {
	switch name {
	case g.name:
		return g.dir.Open(name)
	case templateFile:
		return g.template()
	}
	return nil, absent("open", name)
}

// Stat and Lstat do not look behind the name of the file, as a directory's do not.
func (g ggufFiles) Stat(name string) (fs.FileInfo, error)  { return g.info("stat", name, g.dir.Stat) }
func (g ggufFiles) Lstat(name string) (fs.FileInfo, error) { return g.info("lstat", name, g.dir.Lstat) }

func (g ggufFiles) ReadLink(name string) (string, error) {
	if name != g.name {
		return "", absent("readlink", name)
	}
	return g.dir.ReadLink(name)
}

func (g ggufFiles) info(op, name string, info func(string) (fs.FileInfo, error)) (fs.FileInfo, error) {
	switch name {
	case g.name:
		return info(name)
	case templateFile:
		return g.template()
	}
	return nil, absent(op, name)
}

func (g ggufFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		return nil, absent("readdir", name)
	}
	info, err := g.dir.Stat(g.name)
	if err != nil {
		return nil, err
	}
	return []fs.DirEntry{fs.FileInfoToDirEntry(info)}, nil
}

// template is the chat template that the file holds, as a file.
func (g ggufFiles) template() (*memoryFile, error) {
	f, size, err := regular.Open(g.dir, g.name, ErrCorrupt)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	header, err := readGGUF(f, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g.name, err)
	}
	k := &ggufKeys{g: header}
	text := k.string("tokenizer.chat_template")
	if k.err != nil || text == "" {
		return nil, absent("open", templateFile)
	}
	return &memoryFile{bytes.NewReader([]byte(text)), int64(len(text))}, nil
}

// memoryFile is a file of some bytes, and what is known of it.
type memoryFile struct {
	*bytes.Reader
	size int64
}

func (m *memoryFile) Close() error               { return nil }
func (m *memoryFile) Stat() (fs.FileInfo, error) { return m, nil }
func (m *memoryFile) Name() string               { return templateFile }
func (m *memoryFile) Size() int64                { return m.size }
func (m *memoryFile) Mode() fs.FileMode          { return 0o444 }
func (m *memoryFile) ModTime() time.Time         { return time.Time{} }
func (m *memoryFile) IsDir() bool                { return false }
func (m *memoryFile) Sys() any                   { return nil }
