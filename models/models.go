// Package models holds trained models, each as a file system for photon.LoadFS.
package models

import (
	"embed"
	"io/fs"
)

//go:embed stories
var files embed.FS

// Stories writes simple English: a PHOTON of one level with a token encoder and a memory, trained on stories and
// books. Its card is stories/README.md.
func Stories() fs.FS {
	sub, err := fs.Sub(files, "stories")
	if err != nil {
		panic(err) // the name is a constant: it cannot fail
	}
	return sub
}
