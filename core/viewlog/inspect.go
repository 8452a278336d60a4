package viewlog

import (
	"fmt"
	"net/url"
	"strings"
)

// DirName returns the name of the directory, among those of other views, that
// holds the log of the view: its name with everything escaped that a path could
// mistake. [ViewName] is the way back.
func DirName(view string) string {
	if view == "." || view == ".." {
		return strings.ReplaceAll(view, ".", "%2E")
	}
	return url.PathEscape(view)
}

// ViewName returns the view whose log is in a directory of this name, and an
// error if [DirName] gives no view such a directory.
func ViewName(dir string) (string, error) {
	view, err := url.PathUnescape(dir)
	if err != nil || view == "" || DirName(view) != dir {
		return "", fmt.Errorf("%q is not the directory of a view", dir)
	}
	return view, nil
}
