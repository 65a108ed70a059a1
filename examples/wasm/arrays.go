//go:build js && wasm

package main

import (
	"io"
	"io/fs"
	"path"
	"syscall/js"
	"time"
)

// arrays is a file system of JavaScript's: an object whose keys are file names and whose values are Uint8Arrays. The
// bytes stay on JavaScript's side until they are read.
func arrays(object js.Value) fs.FS { return arrayFS{object} }

type arrayFS struct{ object js.Value }

func (a arrayFS) Open(name string) (fs.File, error) {
	bytes := a.object.Get(name)
	if !bytes.InstanceOf(js.Global().Get("Uint8Array")) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &arrayFile{name: name, bytes: bytes, size: bytes.Length()}, nil
}

// arrayFile is an open file, and what fs.FileInfo tells of it.
type arrayFile struct {
	name     string
	bytes    js.Value
	at, size int
}

func (f *arrayFile) Read(p []byte) (int, error) {
	if f.at == f.size && len(p) > 0 {
		return 0, io.EOF
	}
	n := js.CopyBytesToGo(p, f.bytes.Call("subarray", f.at))
	f.at += n
	return n, nil
}

func (f *arrayFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *arrayFile) Close() error               { return nil }

func (f *arrayFile) Name() string       { return path.Base(f.name) }
func (f *arrayFile) Size() int64        { return int64(f.size) }
func (f *arrayFile) Mode() fs.FileMode  { return 0o444 }
func (f *arrayFile) ModTime() time.Time { return time.Time{} }
func (f *arrayFile) IsDir() bool        { return false }
func (f *arrayFile) Sys() any           { return nil }
