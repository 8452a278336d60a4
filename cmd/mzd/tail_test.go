package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestTail prints views of a pipeline that runs, as people do, and looks at what
// ends it.
func TestTail(t *testing.T) {
	d := newDaemon(t, pipeline{
		init: `
			CREATE SOURCE numbers FROM FILE 'numbers.txt' WITH (tail) FORMAT TEXT;
			CREATE MATERIALIZED VIEW total AS SELECT count(*) FROM numbers;
			CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM numbers;
			CREATE MATERIALIZED VIEW constant AS SELECT 'for ever' AS it;`,
		views: `{total: {}, doubled: {query: "SELECT 2 * count AS count FROM total"}}`,
	})
	numbers := int64(0)
	another := func() {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(d.dir, "numbers.txt"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = fmt.Fprintln(f, "one more")
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		numbers++
	}
	another()
	d.start()
	url := "postgres://materialize@" + d.sql + "/materialize"

	for _, c := range []struct {
		times int64
		name  string
		args  []string
	}{
		{1, "total", []string{"total"}},
		{2, "doubled", []string{"doubled"}},
		{3, "query", []string{"SELECT 3 * count AS count FROM total"}},
		{1, "total", []string{"-url", url, "total"}},
	} {
		tail, out := d.tail(c.args...)
		line := func(diff int) string { return fmt.Sprintf(`"diff":%d,"row":{"count":%d}}`, diff, c.times*numbers) }
		out.await(t, `{"view":"`+c.name+`",`, `"base":true,"rows":1}`, line(1))
		took := line(-1)
		another()
		out.await(t, took, line(1))
		tail.stop()
	}

	// Only what happens from now on, also over a restart of the database.
	tail, out := d.tail("total", "-snapshot=false", "-progress")
	out.await(t, `"progress":true`)
	d.stop()
	tail.log.await(t, "trying again")
	another()
	d.start()
	out.await(t, fmt.Sprintf(`"row":{"count":%d}`, numbers))
	if strings.Contains(out.String(), `"base":true`) {
		t.Errorf("with -snapshot=false it begins with a base:\n%s", out)
	}
	tail.stop()

	// What ends it.
	tail, out = d.tail("constant", "-format", "text")
	out.await(t, "for ever")
	if err := <-tail.ended; err != nil || !strings.Contains(out.String(), "for ever") {
		t.Errorf("a constant: %v\n%s%s", err, out, tail.log)
	}
	tail, out = d.tail("-url", url, "other")
	out.await(t, `"rows":1}`)
	ctx := deadline(t, time.Minute)
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	if _, err := db.Exec(ctx, "DROP VIEW other"); err != nil {
		t.Fatal(err)
	}
	tail.log.await(t, "was dropped")
	tail.stop()
	tail, _ = d.tail("other")
	tail.fails(1, "mzd: tail: ", "unknown catalog item 'other'")
	tail, _ = d.tail("SELECT 1 / count FROM total WHERE count < 0 UNION ALL SELECT count / 0 FROM total")
	tail.fails(1, "mzd: tail: ", "division by zero")
	d.closesPipe(url)

	d.stop()
	tail, _ = d.tail("total")
	tail.fails(1, "connection refused")
}

// closesPipe reads one line of a tail, and no more.
func (d *daemon) closesPipe(url string) {
	d.t.Helper()
	var said strings.Builder
	cmd := exec.Command("mzd", "tail", "-url", url, "total", "-progress")
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, `"base":true`) {
		d.t.Errorf("the first line is %q, %v", line, err)
	}
	out.Close()
	if err := cmd.Wait(); err != nil || said.Len() > 0 {
		d.t.Errorf("when nobody reads it: %v\n%s", err, &said)
	}
}

// tail runs "mzd tail" beside the daemon.
func (d *daemon) tail(args ...string) (*daemon, *logBuffer) {
	d.t.Helper()
	out, tail := &logBuffer{}, &daemon{t: d.t, dir: d.dir}
	tail.launch(out, "", "mzd", append([]string{"tail"}, args...)...)
	return tail, out
}

// fails waits for the end of a command, with an exit code and words.
func (d *daemon) fails(code int, words ...string) {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-deadline(d.t, time.Minute).Done():
		d.t.Fatalf("it goes on:\n%s", d.log)
	}
	if got := d.cmd.ProcessState.ExitCode(); got != code {
		d.t.Errorf("exit code %d, want %d", got, code)
	}
	for _, w := range words {
		if !strings.Contains(d.log.String(), w) {
			d.t.Errorf("it says\n%s\nand nothing of %q", d.log, w)
		}
	}
}

// await waits until all the texts are there.
func (l *logBuffer) await(t *testing.T, texts ...string) {
	t.Helper()
	ctx := deadline(t, time.Minute)
	for _, s := range texts {
		select {
		case <-l.contains(s):
		case <-ctx.Done():
			t.Fatalf("no %q in\n%s", s, l)
		}
	}
}
