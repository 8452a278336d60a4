package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mzdio/mzd/schema"
)

// config checks the document and returns as much of a configuration as is left
// without what has problems.
func (d *document) config(known Known) *Config {
	var cfg Config
	if d.root == nil && len(d.problems) > 0 {
		return &cfg // there is nothing to check
	}
	var tree any
	if d.root != nil {
		tree = d.value(d.root, "", 0)
	}
	if d.nodes > maxNodes {
		return &cfg // and the rest of the document is missing
	}
	checked, problems := Schema().Check(d.secrets(Schema(), "", tree))
	d.report("", problems...)
	if err := remarshal(checked, &cfg); err != nil {
		d.reportAt(d.root, "", "%s", err)
		return &cfg
	}
	d.checkPassword("materialize.url")
	views := d.checkNames(&cfg, tree)
	d.plug(&cfg, known, tree)
	for _, name := range slices.Sorted(maps.Keys(cfg.Sinks)) {
		s := cfg.Sinks[name]
		s.Views = d.sinkViews(name, s.Views, views)
		cfg.Sinks[name] = s
	}
	d.checkBounds(&cfg, tree)
	d.checkListeners(&cfg)
	d.checkTargets(&cfg)
	return &cfg
}

// lookup returns what the keys lead to, nil if nothing.
func lookup(tree any, keys ...string) any {
	for _, key := range keys {
		m, _ := tree.(map[string]any)
		tree = m[key]
	}
	return tree
}

// sinkViews checks the views that a sink asks for; nil asks for all.
func (d *document) sinkViews(sink string, views, known []string) []string {
	if views == nil {
		return known
	}
	at := schema.Path("sinks").Key(sink).Key("views")
	for i, v := range views {
		if !slices.Contains(known, v) {
			d.report(at.Index(i), schema.Errorf("", "there is no view %q; %s", v, schema.Suggest(v, known)))
		} else if slices.Index(views, v) < i {
			d.report(at.Index(i), schema.Errorf("", "%q is listed twice", v))
		}
	}
	return views
}

// Names go into URLs, metrics and the names of files.
var (
	plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$`)
	viewName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9._$-]{0,99}$`)
)

const (
	plainRule = "is not a usable name: letters, digits, '.', '_' and '-', at most 100, beginning with a letter or digit"
	viewRule  = "is not a usable name: letters, digits, '.', '_', '$' and '-', at most 100, beginning with a letter; " +
		`for a view that is called otherwise choose a name and write a query, as in NAME: {query: 'SELECT * FROM "the view"'}`
)

// checkNames checks what users named, and returns the names of the views, those
// that are broken included.
func (d *document) checkNames(cfg *Config, tree any) []string {
	if cfg.Name != "" && !plainName.MatchString(cfg.Name) {
		d.report("name", schema.Errorf("", "%q %s", cfg.Name, plainRule))
	}
	check := func(section schema.Path, rule *regexp.Regexp, explained string) []string {
		m, _ := lookup(tree, string(section)).(map[string]any)
		names := slices.Sorted(maps.Keys(m))
		for _, name := range names {
			if !rule.MatchString(name) {
				d.report(section.Key(name), schema.FieldError{Key: true, Message: explained})
			}
		}
		return names
	}
	check("sources", plainName, plainRule)
	check("sinks", plainName, plainRule)
	if m, ok := lookup(tree, "views").(map[string]any); ok && len(m) == 0 {
		d.report("views", schema.Errorf("", "is empty; name at least one view"))
	}
	return check("views", viewName, viewRule)
}

// checkListeners reports addresses that collide. A setting of a sink that is
// called "listen" is an address to listen on.
func (d *document) checkListeners(cfg *Config) {
	type listener struct {
		path schema.Path
		addr string
	}
	var all []listener
	add := func(path schema.Path, addr string) {
		if addr == "" || CheckAddress(addr) != nil {
			return
		}
		for _, other := range all {
			if collide(other.addr, addr) {
				d.report(path, schema.Errorf("", "listens on the same port as %s; give each its own", other.path))
				return
			}
		}
		all = append(all, listener{path, addr})
	}
	add("admin.listen", cfg.Admin.Listen)
	if cfg.Engine.Listen != "" && cfg.Materialize.URL != Embedded && cfg.Materialize.URL != "" {
		d.report("engine.listen", schema.Errorf("", "opens the embedded engine, which materialize.url does not use; leave it out"))
	}
	add("engine.listen", cfg.Engine.Listen)
	for _, name := range slices.Sorted(maps.Keys(cfg.Sinks)) {
		var settings struct {
			Listen any `json:"listen"`
		}
		if cfg.Sinks[name].Settings == nil || json.Unmarshal(cfg.Sinks[name].Settings, &settings) != nil {
			continue
		}
		path := schema.Path("sinks").Key(name).Key("settings").Key("listen")
		addr, _ := settings.Listen.(string)
		if err := CheckAddress(addr); addr != "" && err != nil && !d.reported(path) {
			d.report(path, schema.Errorf("", "%s", err))
		}
		add(path, addr)
	}
}

// checkBounds reports bounds that leave nothing. Without history whoever is a
// moment behind would get the whole view again.
func (d *document) checkBounds(cfg *Config, tree any) {
	check := func(key schema.Path, bound int64, such string) {
		if bound == 0 && lookup(tree, string(key)) != nil && !d.reported(key) {
			d.report(key, schema.Errorf("", "would keep no history; write %s, or leave it out for the default", such))
		}
	}
	check("retain", int64(cfg.Retain), "a duration such as 30s")
	check("retain_bytes", int64(cfg.RetainBytes), "a size such as 16MiB")
	if cfg.MaxRows < 0 {
		d.report("max_rows", schema.Errorf("", "must be a number of rows, or 0 for any number"))
	}
}

// reported reports whether there is a problem with the path already.
func (d *document) reported(path schema.Path) bool {
	return slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Path == path })
}

// collide reports whether two addresses cannot both be listened on.
func collide(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	if portA != portB || portA == "0" {
		return false
	}
	return anyHost(hostA) || anyHost(hostB) || canonicalHost(hostA) == canonicalHost(hostB)
}

func anyHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func canonicalHost(host string) string {
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	if host = strings.ToLower(host); host == "localhost" {
		return "127.0.0.1"
	}
	return host
}

// CheckAddress says what is wrong with the host:port of a listener.
func CheckAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		hint := ""
		if _, err := strconv.ParseUint(addr, 10, 16); err == nil {
			hint = fmt.Sprintf("; did you mean %q?", "127.0.0.1:"+addr)
		}
		return fmt.Errorf("want an address such as 127.0.0.1:8875, got %q%s", addr, hint)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("the port of %q is not a number from 0 to 65535", addr)
	}
	if strings.ContainsAny(host, " /@?#") {
		return fmt.Errorf("the host of %q is not a host's name or address", addr)
	}
	return nil
}

// checkTargets reports sources that would write over each other.
func (d *document) checkTargets(cfg *Config) {
	owner := make(map[string]schema.Path)
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		file := cfg.Sources[name].To.File
		if file == "" {
			continue
		}
		path := schema.Path("sources").Key(name).Key("to").Key("file")
		if other, taken := owner[filepath.Clean(file)]; taken {
			d.report(path, schema.Errorf("", "is the file of %s too; give each source its own", other))
			continue
		}
		owner[filepath.Clean(file)] = path
	}
}

// checkFiles reports files that the configuration names and that cannot be
// read.
func (d *document) checkFiles(cfg *Config) {
	if cfg.Materialize.Init == "" {
		return
	}
	f, err := os.Open(cfg.Materialize.Init)
	if err != nil {
		d.report("materialize.init", schema.Errorf("", "%s (a relative path starts in the working directory)", err))
		return
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		d.report("materialize.init", schema.Errorf("", "%s is a directory", cfg.Materialize.Init))
	}
	f.Close()
}

// remarshal stores a checked document in the struct it was checked for.
func remarshal(doc any, into any) error {
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
