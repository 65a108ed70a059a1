// Package regular opens and reads the files of a directory that may come from strangers: regular files alone, in memory
// that follows what is really there. What is wrong with one matches the error corrupt.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// Open opens a file that can be read to an end. A directory, pipe, socket or device is refused before it is opened, as
// far as the file system can tell (fs.Sub cannot look behind a link), since opening a pipe waits for its other end and
// opening a device may do anything; and again after, since it may have taken a file's place.
func Open(fsys fs.FS, name string, corrupt error) (fs.File, int64, error) {
	// Lstat, because Stat opens the file where a file system does not offer it.
	info, err := fs.Lstat(fsys, name)
	if err == nil && info.Mode().Type() == fs.ModeSymlink {
		if info, err = fs.Stat(fsys, name); errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("a link to a file that does not exist: %w", corrupt)
		}
	}
	if err == nil {
		err = Check(info, corrupt)
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, 0, err
	}
	if info, err = f.Stat(); err == nil {
		err = Check(info, corrupt)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// Check refuses what is no regular file.
func Check(info fs.FileInfo, corrupt error) error {
	kind := "no regular file"
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeDevice != 0:
		kind = "a device"
	}
	return fmt.Errorf("%s, not a regular file: %w", kind, corrupt)
}

// Read reads a file of at most limit bytes.
func Read(fsys fs.FS, name string, limit int64, corrupt error) ([]byte, error) {
	f, size, err := Open(fsys, name, corrupt)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%d bytes, more than %d: this is no such file: %w", size, limit, corrupt)
	}
	data, err := Append(f, Room(f, size, size), size)
	if err != nil {
		return nil, Truncated(err, corrupt, "ends after %d of %d bytes", len(data), size)
	}
	return data, nil
}

// Reaches reports whether size bytes are really there, so that memory for them need not grow step by step, which leaves
// as much again behind.
func Reaches(f io.Reader, size int64) bool {
	at, ok := f.(io.ReaderAt)
	if !ok || size == 0 {
		return false
	}
	n, _ := at.ReadAt(make([]byte, 1), size-1)
	return n == 1
}

// Room is a buffer for n bytes that end at byte end of a file: with room for all, if they are there.
func Room(f io.Reader, n, end int64) []byte {
	if Reaches(f, end) {
		return make([]byte, 0, n)
	}
	return nil
}

// Append appends n bytes from r to buf, which grows no faster than bytes arrive, whatever n claims.
func Append(r io.Reader, buf []byte, n int64) ([]byte, error) {
	const firstStep = 1 << 16
	for n > 0 {
		step := int(min(n, int64(max(firstStep, len(buf), cap(buf)-len(buf)))))
		buf = slices.Grow(buf, step)
		got, err := io.ReadFull(r, buf[len(buf):len(buf)+step])
		buf = buf[:len(buf)+got]
		if err != nil {
			return buf, err
		}
		n -= int64(step)
	}
	return buf, nil
}

// Truncated turns an unexpected end into corrupt; other errors of reading stay what they are. The format says where.
func Truncated(err, corrupt error, format string, args ...any) error {
	where := fmt.Sprintf(format, args...)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%s: the file is truncated, download it again: %w", where, corrupt)
	}
	return fmt.Errorf("%s: %w", where, err)
}
