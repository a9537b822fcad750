// Where Ollama's server listens, form by form: `host` is envconfig.Host of Ollama
// v0.33 line by line, the rest is Go's own net.Listen. Made listen.json, on Linux:
//
//	unshare -n sh -c 'ip link set lo up; ip addr add 192.0.2.2/24 dev lo;
//	  ip addr add fd00::2/64 dev lo nodad; GODEBUG=multipathtcp=0 go run listen.go < listen.json > new.json'
package main

import (
	"encoding/json"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Row says what becomes of one OLLAMA_HOST. BadPort is a port that Ollama does not
// understand, and replaces by its default with a warning; Refused is Go's reason.
type Row struct {
	Form    string   `json:"form"`
	Host    string   `json:"host"`
	Port    int      `json:"port"`
	BadPort string   `json:"bad_port,omitempty"`
	Refused string   `json:"refused,omitempty"`
	Family  string   `json:"family,omitempty"`
	Address string   `json:"address,omitempty"`
	V6only  bool     `json:"v6only,omitempty"`
	Reached []string `json:"reached,omitempty"`
}

var clients = []string{"127.0.0.1", "::1", "192.0.2.2", "fd00::2"}

func host(text string) (hostport, badPort string) {
	defaultPort := "11434"
	s := strings.TrimSpace(strings.Trim(strings.TrimSpace(text), "\"'"))
	scheme, hostport, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		hostport = s
		if s == "ollama.com" {
			hostport = "ollama.com:443"
		}
	case scheme == "http":
		defaultPort = "80"
	case scheme == "https":
		defaultPort = "443"
	}
	hostport, _, _ = strings.Cut(hostport, "/")
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host, port = "127.0.0.1", defaultPort
		if ip := net.ParseIP(strings.Trim(hostport, "[]")); ip != nil {
			host = ip.String()
		} else if hostport != "" {
			host = hostport
		}
	}
	if n, err := strconv.ParseInt(port, 10, 32); err != nil || n > 65535 || n < 0 {
		badPort, port = port, defaultPort
	}
	return net.JoinHostPort(host, port), badPort
}

func (row *Row) listen() {
	hostport, badPort := host(row.Form)
	row.BadPort = badPort
	h, port, err := net.SplitHostPort(hostport)
	if err != nil {
		row.Refused = err.Error()
		return
	}
	row.Host = h
	row.Port, _ = strconv.Atoi(port)
	listener, err := net.Listen("tcp", net.JoinHostPort(h, "0"))
	if err != nil {
		row.Refused = reason(err)
		return
	}
	defer listener.Close()
	row.look(listener.(*net.TCPListener))
}

func reason(err error) string {
	if strings.Contains(err.Error(), " on ") {
		return "asks a resolver"
	}
	return err.Error()[strings.LastIndex(err.Error(), ": ")+2:]
}

func (row *Row) look(listener *net.TCPListener) {
	raw, _ := listener.SyscallConn()
	raw.Control(func(fd uintptr) {
		switch name, _ := syscall.Getsockname(int(fd)); a := name.(type) {
		case *syscall.SockaddrInet4:
			row.Family, row.Address = "AF_INET", net.IP(a.Addr[:]).String()
		case *syscall.SockaddrInet6:
			row.Family, row.Address = "AF_INET6", net.IP(a.Addr[:]).String()
			v, _ := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY)
			row.V6only = v == 1
		}
	})
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	for _, client := range clients {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(client, port), time.Second)
		if err == nil {
			conn.Close()
			row.Reached = append(row.Reached, client)
		}
	}
	slices.Sort(row.Reached)
}

func main() {
	var rows []*Row
	if err := json.NewDecoder(os.Stdin).Decode(&rows); err != nil {
		panic(err)
	}
	for _, row := range rows {
		*row = Row{Form: row.Form}
		row.listen()
	}
	out := json.NewEncoder(os.Stdout)
	os.Stdout.WriteString("[\n")
	for i, row := range rows {
		if i > 0 {
			os.Stdout.WriteString(",")
		}
		out.Encode(row)
	}
	os.Stdout.WriteString("]\n")
}
