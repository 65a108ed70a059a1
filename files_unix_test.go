//go:build unix

package photon

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/photon-lm/photon/internal/regular"
)

// copyModel copies a model directory and gives it a tokenizer.
func copyModel(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata/golden", name))); err != nil {
		t.Fatal(err)
	}
	tokenizer := `{"model":{"vocab":{"a":0},"merges":[]},"decoder":{"type":"ByteLevel"}}`
	if err := os.WriteFile(filepath.Join(dir, tokenizerFileName), []byte(tokenizer), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// within runs f, which must return soon.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("not back after %v", limit)
	}
}

// A file that is no file is an error at once, whichever it is and whoever opens it.
func TestLoadNoFiles(t *testing.T) {
	for _, path := range []string{os.DevNull, "/dev/zero"} { // in a model's place
		checkRefused(t, loadError(path), ErrCorrupt, path, "a device")
		_, err := Files(path)
		checkRefused(t, err, ErrCorrupt, path, "a device")
	}
	checkRefused(t, loadError("files.go"), ErrInvalid, "files.go", "directory", ".gguf")
	make := func(f func(path string) error) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := f(path); err != nil {
				t.Skip(err)
			}
		}
	}
	kinds := []struct {
		name   string
		make   func(t *testing.T, path string)
		kind   error
		absent bool // what is not there may be left out
	}{
		{"named pipe", make(func(path string) error { return syscall.Mkfifo(path, 0o644) }), ErrCorrupt, false},
		{"link to a named pipe", make(func(path string) error {
			return errors.Join(syscall.Mkfifo(path+".pipe", 0o644), os.Symlink(filepath.Base(path)+".pipe", path))
		}), ErrCorrupt, false},
		{"socket", func(t *testing.T, path string) {
			t.Chdir(filepath.Dir(path)) // a socket's path is short
			l, err := net.Listen("unix", filepath.Base(path))
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() { l.Close() })
		}, ErrCorrupt, false},
		{"directory", make(func(path string) error { return os.Mkdir(path, 0o755) }), ErrCorrupt, false},
		{"link to an endless device", make(func(path string) error { return os.Symlink("/dev/zero", path) }), ErrCorrupt, false},
		{"link to an empty device", make(func(path string) error { return os.Symlink("/dev/null", path) }), ErrCorrupt, false},
		{"link to itself", make(func(path string) error { return os.Symlink(filepath.Base(path), path) }), syscall.ELOOP, false},
		{"link to nothing", make(func(path string) error { return os.Symlink("nothing", path) }), ErrCorrupt, false},
		{"LFS pointer", make(func(path string) error { return os.WriteFile(path, []byte(lfsMagic+".github.com/spec/v1\n"), 0o644) }), ErrCorrupt, false},
		{"nothing", make(func(path string) error { return nil }), fs.ErrNotExist, true},
		{"unreadable file", make(func(path string) error {
			if os.Geteuid() == 0 {
				return errors.New("root reads everything")
			}
			return os.WriteFile(path, nil, 0)
		}), fs.ErrPermission, false},
	}
	for _, file := range []struct{ model, name string }{
		{"photon-local-f32", configFile}, {"photon-local-f32", weightsFile}, {"photon-local-f32", tokenizerFileName},
		{"photon-shards-bf16", indexFile}, {"photon-shards-bf16", "model-00002-of-00003.safetensors"},
	} {
		for _, kind := range kinds {
			t.Run(file.name+"/"+kind.name, func(t *testing.T) {
				dir := copyModel(t, file.model)
				path := filepath.Join(dir, file.name)
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				kind.make(t, path)
				sub, err := fs.Sub(os.DirFS(filepath.Dir(dir)), filepath.Base(dir))
				if err != nil {
					t.Fatal(err)
				}
				for name, load := range map[string]func() (*Model, error){
					"Load":              func() (*Model, error) { return Load(dir) },
					"LoadFS":            func() (*Model, error) { return LoadFS(os.DirFS(dir)) },
					"LoadFS of a part":  func() (*Model, error) { return LoadFS(sub) },
					"Open, not waiting": func() (*Model, error) { return LoadFS(blindFS{regular.Dir(dir)}) },
				} {
					if name == "Open, not waiting" && (kind.kind != ErrCorrupt || kind.name == "socket" || kind.name == "link to nothing") {
						continue // the system's own error
					}
					if name == "LoadFS of a part" && kind.name == "link to a named pipe" {
						continue // fs.Sub cannot look behind a link without opening it
					}
					var m *Model
					var err error
					within(t, 5*time.Second, func() { m, err = load() })
					if kind.absent && file.name == tokenizerFileName {
						if err != nil || m.Tokenizer() != nil {
							t.Errorf("%s: %v, without a tokenizer", name, err)
						}
						continue
					}
					if m != nil || !errors.Is(err, kind.kind) || !strings.Contains(err.Error(), file.name) {
						t.Errorf("%s: error %v, want one that is %v and names %s", name, err, kind.kind, file.name)
					}
				}
			})
		}
	}
}

// A blindFS says of every file that it is a regular one, as it may have been when it was looked at.
type blindFS struct{ regular.Dir }

type blindInfo struct{ fs.FileInfo }

func (b blindFS) Lstat(name string) (fs.FileInfo, error) {
	info, err := b.Dir.Lstat(name)
	return blindInfo{info}, err
}

func (blindInfo) Mode() fs.FileMode { return 0o644 }

// ReadLink is that of the system, of a directory and of a .gguf file's.
func TestReadLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("there", filepath.Join(dir, "model.gguf")); err != nil {
		t.Fatal(err)
	}
	for _, fsys := range []fs.ReadLinkFS{regular.Dir(dir), ggufFiles{regular.Dir(dir), "model.gguf"}} {
		if to, err := fsys.ReadLink("model.gguf"); err != nil || to != "there" {
			t.Errorf("%T: %q, %v", fsys, to, err)
		}
		for _, name := range []string{"absent", "../x"} {
			if to, err := fsys.ReadLink(name); err == nil || to != "" {
				t.Errorf("%T: %s leads to %q", fsys, name, to)
			}
		}
	}
}
