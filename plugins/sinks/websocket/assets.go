package websocket

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
)

// web is the page; client the package for browsers, of which mzd.js is served.
//
//go:embed web client/mzd.js
var web embed.FS

// asset is a file of the page.
type asset struct {
	media string
	etag  string
	data  []byte
}

// assets are the files of the page by path.
type assets map[string]asset

func loadAssets() assets {
	files := []struct{ path, file, media string }{
		{"/", "web/index.html", "text/html; charset=utf-8"},
		{"/page.css", "web/page.css", "text/css; charset=utf-8"},
		{"/page.js", "web/page.js", "text/javascript; charset=utf-8"},
		{"/live.js", "web/live.js", "text/javascript; charset=utf-8"},
		{"/table.js", "web/table.js", "text/javascript; charset=utf-8"},
		{"/split", "web/split.html", "text/html; charset=utf-8"},
		{"/split.js", "web/split.js", "text/javascript; charset=utf-8"},
		{"/mzd.js", "client/mzd.js", "text/javascript; charset=utf-8"},
		{"/favicon.svg", "web/favicon.svg", "image/svg+xml"},
		{"/favicon.ico", "web/favicon.svg", "image/svg+xml"},
	}
	loaded := make(assets)
	for _, f := range files {
		data, err := web.ReadFile(f.file)
		if err != nil {
			panic(err) // the file is missing from the source
		}
		sum := sha256.Sum256(data)
		loaded[f.path] = asset{f.media, `"` + hex.EncodeToString(sum[:8]) + `"`, data}
	}
	return loaded
}

// contentPolicy lets the page load and reach nothing but this server.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// serveAsset serves the page and what belongs to it, and answers what nothing
// else does.
func (s *server) serveAsset(w http.ResponseWriter, r *http.Request) {
	a, ok := s.assets[r.URL.Path]
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		serveUnknown(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.media)
	h.Set("Cache-Control", "no-cache") // ask each time: a new version has a new tag
	h.Set("ETag", a.etag)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", contentPolicy)
	if r.URL.Path == "/mzd.js" {
		h.Set("Access-Control-Allow-Origin", "*") // other pages may import the client; reading streams is another matter
	}
	if accepts(r.Header, "If-None-Match", a.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write(a.data)
}

func serveUnknown(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		writeError(w, apiError{http.StatusNotFound, "not_found", "nothing here; see /api/views", 0})
	case http.MethodOptions:
		h := w.Header()
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		h.Set("Access-Control-Allow-Headers", "If-None-Match, Last-Event-ID")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		writeError(w, apiError{http.StatusMethodNotAllowed, "method_not_allowed", "only GET is served here", 0})
	}
}
