package photon

import (
	"encoding/binary"
	"errors"
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

func (b *blockReader) read(data []byte) error {
	n, err := io.ReadFull(b.r, data)
	b.n += int64(n)
	b.sum = crc32.Update(b.sum, castagnoli, data)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("ends after %d bytes: %w", b.n, ErrCorrupt)
	}
	return err
}

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
