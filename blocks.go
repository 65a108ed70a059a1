package photon

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// blockWriter writes to w and keeps the sum of all.
type blockWriter struct {
	w   io.Writer
	n   int64
	sum uint32
}

func (b *blockWriter) write(data []byte) error {
	n, err := b.w.Write(data)
	b.n += int64(max(0, min(n, len(data))))
	if err == nil && n != len(data) {
		err = io.ErrShortWrite
	}
	b.sum = crc32.Update(b.sum, castagnoli, data)
	return err
}

func (b *blockWriter) block(data []byte) error {
	err := b.write(binary.LittleEndian.AppendUint32(nil, uint32(len(data))))
	if err == nil && len(data) > 0 {
		err = b.write(data)
	}
	if err == nil {
		err = b.write(binary.LittleEndian.AppendUint32(nil, b.sum))
	}
	return err
}

// blockReader reads what a blockWriter wrote.
type blockReader struct {
	r   io.Reader
	n   int64
	sum uint32
	buf []byte
}

// read fills data. A reader that gives neither bytes nor an error many times in a row never will.
func (b *blockReader) read(data []byte) error {
	for n, empty := 0, 0; n < len(data); {
		got, err := b.r.Read(data[n:])
		if got < 0 || got > len(data)-n {
			return fmt.Errorf("the reader says that it has read %d of %d bytes: mend its Read: %w",
				got, len(data)-n, ErrInvalid)
		}
		n, empty, b.n = n+got, empty+1, b.n+int64(got)
		switch {
		case n == len(data):
		case err == io.EOF:
			return fmt.Errorf("ends after %d bytes: %w", b.n, ErrCorrupt)
		case err != nil:
			return err
		case got > 0:
			empty = 0
		case empty == mostEmpty:
			return io.ErrNoProgress
		}
	}
	b.sum = crc32.Update(b.sum, castagnoli, data)
	return nil
}

const mostEmpty = 100

// block returns the next block, valid until the next call.
func (b *blockReader) block() ([]byte, error) {
	var word [4]byte
	if err := b.read(word[:]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(word[:])
	if size > snapshotBlock {
		return nil, fmt.Errorf("a block of %d bytes, the most is %d: %w", size, snapshotBlock, ErrCorrupt)
	}
	b.buf = grow(b.buf, int(size))
	if err := b.read(b.buf); err != nil {
		return nil, err
	}
	want := b.sum
	if err := b.read(word[:]); err != nil {
		return nil, err
	}
	if got := binary.LittleEndian.Uint32(word[:]); got != want {
		return nil, fmt.Errorf("checksum %08x before byte %d, want %08x: the bytes were changed: %w", got, b.n, want, ErrCorrupt)
	}
	return b.buf, nil
}
