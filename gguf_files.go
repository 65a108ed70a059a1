package photon

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Files returns the files of the model at path, for LoadFS, Inspect and CheckWeights: those of a directory, or those
// that a GGUF file stands for, which are itself and, where it has one, chat_template.jinja.
func Files(path string) (fs.FS, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("photon: model: %w", err)
	case info.IsDir():
		return directory(path), nil
	case !strings.HasSuffix(path, ggufExtension):
		return nil, fmt.Errorf("photon: %s is a file: give the directory that holds config.json and model.safetensors, "+
			"or a %s file: %w", path, ggufExtension, ErrInvalid)
	}
	return ggufFiles{directory(filepath.Dir(path)), filepath.Base(path)}, nil
}

const templateFile = "chat_template.jinja"

// ggufFiles is a directory in which one GGUF file is all there is.
type ggufFiles struct {
	dir  directory
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
	f, size, err := openRegular(g.dir, g.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	header, err := readGGUF(f, size)
	if err != nil {
		return nil, err
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
