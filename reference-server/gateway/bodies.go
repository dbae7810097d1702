package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// bodies counts the bytes of request bodies in memory. A body is held from when it
// is read until its replica begins to answer.
type bodies struct {
	mu      sync.Mutex
	all     int64
	tenants map[string]int64
}

const (
	bodyStep = 64 << 10 // read and counted at a time if the request gives no length
	megabyte = 1 << 20
)

// held is the number of bytes counted for one request.
type held struct {
	of     *bodies
	tenant string
	n      int64
}

// errManyBytes is why a body is not read.
var errManyBytes = errors.New("too many bytes of requests are held")

// grow adds bytes to the count if the bounds allow it; a bound of 0 is none.
func (h *held) grow(n, tenant, all int64) error {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	if tenant > 0 && h.of.tenants[h.tenant]+n > tenant || all > 0 && h.of.all+n > all {
		return errManyBytes
	}
	if h.of.tenants == nil {
		h.of.tenants = map[string]int64{}
	}
	h.of.all += n
	h.of.tenants[h.tenant] += n
	h.n += n
	return nil
}

// release subtracts all bytes of the request, once.
func (h *held) release() {
	if h == nil {
		return
	}
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.of.all -= h.n
	if h.of.tenants[h.tenant] -= h.n; h.of.tenants[h.tenant] == 0 {
		delete(h.of.tenants, h.tenant)
	}
	h.n = 0
}

// read reads a body into one slice: of its Content-Length if there is one, else
// growing. Twice the length is counted, because the copy that goes to the replica
// counts too.
func (h *held) read(from io.Reader, length int64, bounds Bodies) ([]byte, error) {
	tenant, all := int64(bounds.Tenant)*megabyte, int64(bounds.All)*megabyte
	if length >= 0 && length <= maxBody {
		if err := h.grow(2*length, tenant, all); err != nil {
			return nil, err
		}
		body := make([]byte, length)
		n, err := io.ReadFull(from, body)
		if err == nil {
			_, err = from.Read(make([]byte, 1)) // the end
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return body[:n], err
	}
	var body []byte
	for {
		if cap(body)-len(body) < bodyStep {
			if err := h.grow(int64(2*(max(bodyStep, cap(body)))), tenant, all); err != nil {
				return nil, err
			}
			body = append(make([]byte, 0, cap(body)+max(bodyStep, cap(body))), body...)
		}
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return body, err
		}
	}
}

func tooManyBytes(bounds Bodies) refusal {
	return refusal{http.StatusTooManyRequests, "too_many_bytes", fmt.Sprintf("too many bytes of requests are under way; a tenant may have %d MiB, and all together %d: send fewer at once", bounds.Tenant, bounds.All)}
}
