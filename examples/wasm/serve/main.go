// Command serve serves the page that build has made, with the standard library alone:
//
//	go run ./examples/wasm/serve [-addr 127.0.0.1:8080] [DIR]
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "where to listen")
	flag.Parse()
	dir := filepath.Join("examples", "wasm", "dist")
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	if err := serve(*addr, dir); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func serve(addr, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "index.html")); err != nil {
		return fmt.Errorf("%s holds no page: run  go run ./examples/wasm/build  first, from the repository's root: %w", dir, err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w: choose another address with -addr", err)
	}
	fmt.Printf("http://%s/\n", l.Addr())
	return http.Serve(l, http.FileServer(http.Dir(dir)))
}
