package v1

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// Protocols that a connection is upgraded to.
const (
	ProtocolExec = "fairlead-exec/1" // Frames, both ways
	ProtocolTCP  = "fairlead-tcp/1"  // bytes, both ways
	// ProtocolTunnel is HTTP/2 with the roles turned round: the server asks.
	ProtocolTunnel = "fairlead-tunnel/1"
)

// FrameType says what a frame of an exec connection carries.
type FrameType byte

// Types of frames. The client sends the first three, the server the others.
const (
	FrameStdin    FrameType = 1
	FrameStdinEOF FrameType = 2
	FrameResize   FrameType = 3 // width and height, 4 bytes each, big-endian
	FrameStdout   FrameType = 4
	FrameStderr   FrameType = 5
	FrameExit     FrameType = 6 // exit code, 4 bytes, big-endian; the last frame
	FrameError    FrameType = 7 // a Problem as JSON; the last frame
)

// MaxFrame is the most bytes in one frame's payload.
const MaxFrame = 64 << 10

// WriteFrame writes one frame: its type, its length in 4 bytes big-endian, its payload.
func WriteFrame(w io.Writer, t FrameType, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("frame of %d bytes: at most %d", len(payload), MaxFrame)
	}
	buf := make([]byte, 5, 5+len(payload))
	buf[0] = byte(t)
	binary.BigEndian.PutUint32(buf[1:], uint32(len(payload))) //nolint:gosec // at most MaxFrame
	_, err := w.Write(append(buf, payload...))
	return err
}

// ReadFrame reads one frame. The payload is valid until the next call with the same buf.
func ReadFrame(r io.Reader, buf []byte) (FrameType, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes: at most %d", n, MaxFrame)
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return 0, nil, fmt.Errorf("frame cut short: %w", err)
	}
	return FrameType(head[0]), buf, nil
}

// Uint32s encodes numbers as a frame's payload.
func Uint32s(v ...uint32) []byte {
	out := make([]byte, 0, 4*len(v))
	for _, n := range v {
		out = binary.BigEndian.AppendUint32(out, n)
	}
	return out
}

// ReadInput takes a command's input frames apart until they end: what it reads, the
// end of that, and new sizes of its terminal, of which only the newest counts.
func ReadInput(r io.Reader, stdin *io.PipeWriter, sizes chan [2]uint) {
	buf := make([]byte, MaxFrame)
	for {
		t, p, err := ReadFrame(r, buf)
		if err != nil {
			_ = stdin.CloseWithError(io.ErrUnexpectedEOF)
			return
		}
		switch t {
		case FrameStdin:
			_, _ = stdin.Write(p) // a command that reads no more is no reason to end it
		case FrameStdinEOF:
			_ = stdin.Close()
		case FrameResize:
			if len(p) != 8 {
				continue
			}
			size := [2]uint{uint(binary.BigEndian.Uint32(p)), uint(binary.BigEndian.Uint32(p[4:]))}
			select {
			case <-sizes:
			default:
			}
			sizes <- size
		case FrameStdout, FrameStderr, FrameExit, FrameError:
		}
	}
}

// SendInput sends what a command reads, and then that it has ended. A read from a
// terminal cannot be interrupted: it may outlive the command by one line.
func SendInput(w io.Writer, mu *sync.Mutex, in io.Reader) {
	if _, err := io.Copy(FrameWriter{W: w, Type: FrameStdin, Mu: mu}, in); err != nil {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	_ = WriteFrame(w, FrameStdinEOF, nil)
}

// SendSizes sends the terminal's new sizes until they end, or done does.
func SendSizes(w io.Writer, mu *sync.Mutex, sizes <-chan [2]uint, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			mu.Lock()
			err := WriteFrame(w, FrameResize, Uint32s(uint32(size[0]), uint32(size[1]))) //nolint:gosec // columns and rows
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}
}

// FrameWriter turns writes into frames of one type. Several may share one
// connection and one lock.
type FrameWriter struct {
	W    io.Writer
	Type FrameType
	Mu   *sync.Mutex
}

// Write implements io.Writer.
func (f FrameWriter) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		part := p[:min(len(p), MaxFrame)]
		f.Mu.Lock()
		err := WriteFrame(f.W, f.Type, part)
		f.Mu.Unlock()
		if err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}
