// Command build puts the page into a directory that any static server can serve:
//
//	go run ./examples/wasm/build [-o DIR] [-simd=false]
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/version"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/photon-lm/photon/models"
)

// A download is a file that the worker fetches and unpacks by itself, so that no server has to know about gzip.
type download struct {
	Name   string `json:"name"`
	File   string `json:"file"`  // on the server
	Bytes  int    `json:"bytes"` // of that
	Unpack int    `json:"unpacked"`
}

type manifest struct {
	Version   string     `json:"version"` // of all files together
	Downloads []download `json:"downloads"`
}

func main() {
	out := flag.String("o", "", "the directory to write (default examples/wasm/dist)")
	simd := flag.Bool("simd", true, "use WebAssembly's SIMD, which wants Go 1.27 and fetches it where Go is older")
	flag.Parse()
	if err := build(*out, *simd); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func build(out string, simd bool) error {
	root, err := command(nil, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/photon-lm/photon")
	if err != nil {
		return err
	}
	source := filepath.Join(root, "examples", "wasm")
	if out == "" {
		out = filepath.Join(source, "dist")
	}
	if err := os.MkdirAll(out, 0o777); err != nil {
		return err
	}
	program := filepath.Join(out, "photon.wasm")
	compiler, err := compiler(simd)
	if err != nil {
		return err
	}
	target := append(compiler, "GOOS=js", "GOARCH=wasm")
	_, err = command(target, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, source)
	if err != nil && simd {
		err = fmt.Errorf("%w\n-simd=false builds without Go 1.27 what runs at a fifth of the speed", err)
	}
	if err != nil {
		return err
	}
	wasm, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if err := os.Remove(program); err != nil { // it is served packed
		return err
	}

	var m manifest
	hash := sha256.New()
	write := func(name string, data []byte) error {
		fmt.Fprintln(hash, name, len(data))
		hash.Write(data)
		return os.WriteFile(filepath.Join(out, name), data, 0o666)
	}
	pack := func(name string, data []byte) error {
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := z.Write(data); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		// Not .gz: some servers say of such a file that it is packed, and the browser unpacks it before the worker can.
		d := download{Name: name, File: name + ".packed", Bytes: packed.Len(), Unpack: len(data)}
		m.Downloads = append(m.Downloads, d)
		return write(d.File, packed.Bytes())
	}
	if err := pack("photon.wasm", wasm); err != nil {
		return err
	}
	for _, name := range []string{"config.json", "tokenizer.json", "model.safetensors"} {
		data, err := fs.ReadFile(models.Stories(), name)
		if err != nil {
			return err
		}
		if err := pack(name, data); err != nil {
			return err
		}
	}
	goroot, err := command(compiler, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	static := []string{filepath.Join(goroot, "lib", "wasm", "wasm_exec.js")} // it belongs to the compiler that built the program
	page, err := filepath.Glob(filepath.Join(source, "page", "*"))
	if err != nil {
		return err
	}
	for _, file := range append(static, page...) {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if filepath.Base(file) == offline {
			continue // finish writes it
		}
		if err := write(filepath.Base(file), data); err != nil {
			return err
		}
	}
	return finish(source, out, &m, hash.Sum(nil))
}

// compiler is the environment in which go compiles for SIMD: Go 1.27 has it, as an experiment.
func compiler(simd bool) ([]string, error) {
	if !simd {
		return nil, nil
	}
	have, err := command(nil, "go", "env", "GOVERSION")
	if err != nil {
		return nil, err
	}
	env := []string{"GOEXPERIMENT=simd"}
	if version.Compare(have, "go1.27") < 0 {
		env = append(env, "GOTOOLCHAIN=go1.27.4")
	}
	return env, nil
}

const offline = "offline.js"

// finish writes the two files that know the version: a browser takes a changed offline.js for a new page.
func finish(source, out string, m *manifest, sum []byte) error {
	m.Version = fmt.Sprintf("%x", sum[:8])
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "files.json"), data, 0o666); err != nil {
		return err
	}
	script, err := os.ReadFile(filepath.Join(source, "page", offline))
	if err != nil {
		return err
	}
	if !bytes.Contains(script, []byte("VERSION")) {
		return errors.New("page/offline.js does not mention VERSION")
	}
	script = bytes.ReplaceAll(script, []byte("VERSION"), []byte(m.Version))
	if err := os.WriteFile(filepath.Join(out, offline), script, 0o666); err != nil {
		return err
	}
	total := 0
	for _, d := range m.Downloads {
		fmt.Printf("%-18s %9d bytes, packed %9d\n", d.Name, d.Unpack, d.Bytes)
		total += d.Bytes
	}
	fmt.Printf("%s: %.1f MB to download; serve it with: go run ./examples/wasm/serve\n", out, float64(total)/1e6)
	return nil
}

// command runs a program with more variables and returns its output, trimmed.
func command(env []string, name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), env...)
	c.Stderr = os.Stderr
	data, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(data)), nil
}
