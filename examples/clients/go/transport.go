package enclaveapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	// Socket is where the API is without a network.
	Socket = "/run/enclave/api.sock"
	// DefaultTimeout is how long a request may take without an earlier deadline.
	DefaultTimeout = 20 * time.Second
	// The largest answer that is read, in bytes.
	maxAnswer = 1024 * 1024
)

// Error says that the API has refused a request.
type Error struct {
	// The HTTP status.
	Status int
	// What was wrong, for programs: one of the constants. Empty if whoever answered was not
	// the API.
	Code string
	// What was wrong, for people.
	Reason string
	// What to do about it, for people.
	Advice string
}

func (e *Error) Error() string {
	if e.Code == "" {
		return e.Reason
	}
	return e.Reason + " (" + e.Code + ")"
}

// Client is a client of the local API, for any number of goroutines. Its methods return an
// *Error if the API refuses a request.
type Client struct {
	http *http.Client
	base string
}

// New makes a client of the API at the address, http://HOST:PORT or unix:PATH; "" stands for
// that of the variable ENCLAVE_API, or else for the socket.
func New(address string) (*Client, error) {
	if address == "" {
		address = os.Getenv("ENCLAVE_API")
	}
	if address == "" {
		address = "unix:" + Socket
	}
	// The API takes one request over a connection, and is reached without proxies.
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	base := address
	if path := strings.TrimPrefix(address, "unix:"); path != address {
		base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", path)
		}
	} else if parts, err := url.Parse(address); err != nil || parts.Scheme != "http" || parts.Host == "" {
		return nil, fmt.Errorf("%q is neither http://HOST:PORT nor unix:PATH", address)
	}
	client := &http.Client{
		Transport: transport,
		Timeout:   DefaultTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	return &Client{http: client, base: strings.TrimSuffix(base, "/")}, nil
}

// send gives the body of the answer.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body interface{}) ([]byte, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Enclave-Api", "1")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	received, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(received) > maxAnswer {
		return nil, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return nil, refusal(answer.StatusCode, received)
	}
	return received, nil
}

// json reads the answer as JSON.
func (c *Client) json(ctx context.Context, method, path string, query url.Values, body, answer interface{}) error {
	received, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(received, answer)
}

func refusal(status int, received []byte) *Error {
	var said struct {
		Code   string `json:"code"`
		Error  string `json:"error"`
		Advice string `json:"advice"`
	}
	if err := json.Unmarshal(received, &said); err != nil || said.Code == "" {
		reason := fmt.Sprintf("the answer has status %d and no reason", status)
		return &Error{Status: status, Reason: reason}
	}
	return &Error{Status: status, Code: said.Code, Reason: said.Error, Advice: said.Advice}
}
