"""Requests that are malformed, with a client's secret in every part."""

SECRET = b"s3cr3tOfAClient"
BODY = b'{"model":"tiny","prompt":"%b"}' % SECRET
KEY = b"Authorization: Bearer %b" % SECRET
FIRST = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n"
CLOSED = b"Connection: close"


def get(target: bytes, *fields: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    head = [b"GET %b %b" % (target, version), b"Host: localhost", CLOSED, *fields]
    return b"\r\n".join([*head, b"", b""])


def post(*fields: bytes, body: bytes = BODY, path: bytes = b"/api/generate") -> bytes:
    head = [b"POST %b HTTP/1.1" % path, b"Host: localhost", KEY, *fields]
    return b"\r\n".join([*head, b"", body])


MALFORMED = {
    "control in a header": get(b"/api/tags", KEY + b"\x01"),
    "NUL in a header": get(b"/api/tags", KEY + b"\x00x"),
    "line end in a header": get(b"/api/tags", KEY + b"\rx"),
    "bare line feed": get(b"/api/tags", KEY + b"\nx"),
    "folded header": get(b"/api/tags", b"X: 1\r\n " + SECRET),
    "no colon": get(b"/api/tags", SECRET),
    "blank in a name": get(b"/api/tags", SECRET + b" : x"),
    "name beyond ASCII": get(b"/api/tags", SECRET + b"\xe4: x"),
    "query beyond ASCII": get(b"/api/tags?q=%b\xe4" % SECRET),
    "query with a control": get(b"/api/tags?q=%b\x01" % SECRET),
    "query with a blank": get(b"/api/tags?q=%b x" % SECRET),
    "query with ESC": get(b"/api/tags?q=%b\x1b[31m" % SECRET),
    "target without a slash": get(SECRET),
    "target of a URL": get(b"http://user:%b@/x" % SECRET),
    "target of a broken URL": get(b"http://[%b/" % SECRET),
    "version": get(b"/", version=b"HTTP/" + SECRET),
    "version 2": get(b"/?q=%b" % SECRET, KEY, version=b"HTTP/2.0"),
    "method": b"%b / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % SECRET,
    "length too small": post(b"Content-Length: 5"),
    "length too small, behind": post(b"Content-Length: 5", b"Prefer: wait=0"),
    "length is none": post(b"Content-Length: " + SECRET),
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6"),
    "length and chunks": post(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunk without length": post(b"Transfer-Encoding: chunked"),
    "chunk too long": post(b"Transfer-Encoding: chunked", body=b"2\r\n" + BODY),
    "coding": post(b"Transfer-Encoding: " + SECRET),
    "two hosts": get(b"/", b"Host: " + SECRET),
    "host": b"GET / HTTP/1.1\r\nHost: %b/%b\r\n\r\n" % (SECRET, SECRET),
    "no host": b"GET /?%b HTTP/1.1\r\nConnection: close\r\n\r\n" % SECRET,
    "expect": post(b"Expect: " + SECRET, b"Content-Length: 0", body=b""),
    "no HTTP": SECRET + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01" + SECRET + b"\r\n\r\n",
    "upgrade": post(
        b"Connection: upgrade", b"Upgrade: " + SECRET, b"Content-Length: 0"
    ),
    "JSON": post(b"Content-Length: %d" % len(BODY), CLOSED, body=BODY[:-1] + b"\xff"),
    "header of the answer": get(b"//%0d%0a" + SECRET),
    "half a character": get(b"/api/tags", KEY + b"\xe4"),
    "encoding": post(
        b"Content-Encoding: gzip", b"Content-Length: %d" % len(BODY), CLOSED
    ),
}
