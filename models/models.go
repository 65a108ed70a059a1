// Package models holds trained models, each as a file system for photon.LoadFS.
package models

import (
	"embed"
	"io/fs"
)

//go:embed stories
var files embed.FS

// Stories writes simple English stories: a PHOTON of two levels (4×4), trained on children's stories. Its card is stories/README.md.
func Stories() fs.FS {
	sub, err := fs.Sub(files, "stories")
	if err != nil {
		panic(err) // the name is a constant: it cannot fail
	}
	return sub
}
