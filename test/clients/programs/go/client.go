// Go's database/sql with lib/pq, see README.md.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lib/pq"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(good bool, what string) {
	if !good {
		panic(what)
	}
}

func ok(step string) { fmt.Println("ok", step) }

func open() *sql.DB {
	db, err := sql.Open("postgres", "sslmode=require connect_timeout=10")
	must(err)
	db.SetMaxOpenConns(1)
	return db
}

func number(c *sql.Conn, text string, args ...interface{}) (n int, err error) {
	err = c.QueryRowContext(context.Background(), text, args...).Scan(&n)
	return
}

func basics(ctx context.Context, c *sql.Conn) {
	n, err := number(c, "SELECT $1::int + 1", 41)
	must(err)
	check(n == 42, "params")
	ok("params")
	p, err := c.PrepareContext(ctx, "SELECT $1::int * 2")
	must(err)
	for i := 0; i < 20; i++ {
		must(p.QueryRowContext(ctx, i).Scan(&n))
		check(n == 2*i, "prepared")
	}
	must(p.Close())
	ok("prepared")
	_, err = c.ExecContext(ctx, "DROP TABLE IF EXISTS c_go; CREATE TABLE c_go (i int, s text)")
	must(err)
	t, err := c.BeginTx(ctx, nil)
	must(err)
	_, err = t.Exec("INSERT INTO c_go VALUES ($1, $2)", 1, "a")
	must(err)
	must(t.Rollback())
	n, err = number(c, "SELECT count(*) FROM c_go")
	must(err)
	check(n == 0, "rolled back")
	ok("transaction")
	t, err = c.BeginTx(ctx, nil)
	must(err)
	in, err := t.Prepare(pq.CopyIn("c_go", "i", "s"))
	must(err)
	for i := 1; i <= 20000; i++ {
		_, err = in.Exec(i, strings.Repeat("y", 100))
		must(err)
	}
	_, err = in.Exec()
	must(err)
	must(in.Close())
	must(t.Commit())
	n, err = number(c, "SELECT count(*) FROM c_go")
	must(err)
	check(n == 20000, "copy")
	ok("copy")
}

func more(ctx context.Context, c *sql.Conn) {
	rows, err := c.QueryContext(ctx, "SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
	must(err)
	count := 0
	for rows.Next() {
		var i int
		var s string
		must(rows.Scan(&i, &s))
		count++
		check(i == count && len(s) == 1000, "large")
	}
	must(rows.Err())
	check(count == 20000, "large")
	ok("large")
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	begun := time.Now()
	_, err = c.ExecContext(short, "SELECT pg_sleep(30)")
	stop()
	check(err != nil && time.Since(begun) < 15*time.Second, "cancel")
	if e, is := err.(*pq.Error); is {
		check(e.Code == "57014", e.Error())
	}
	ok("cancel")
}

func notify() {
	l := pq.NewListener("sslmode=require", time.Second, time.Minute, nil)
	must(l.Listen("c_go"))
	other := open()
	_, err := other.Exec("NOTIFY c_go, 'hello'")
	must(err)
	must(other.Close())
	select {
	case n := <-l.Notify:
		check(n != nil && n.Extra == "hello", "notify")
	case <-time.After(10 * time.Second):
		panic("no notification")
	}
	must(l.Close())
	ok("notify")
}

func main() {
	ctx := context.Background()
	db := open()
	c, err := db.Conn(ctx)
	must(err)
	basics(ctx, c)
	more(ctx, c)
	notify()
	for try := 0; ; try++ { // the cancel has cost its connection, as lib/pq does it: a fresh one for what comes
		c.Close()
		c, err = db.Conn(ctx)
		must(err)
		if _, err = number(c, "SELECT 1"); err == nil {
			break
		}
		check(try < 3, "no fresh connection")
	}
	_, err = c.ExecContext(ctx, "BEGIN")
	must(err)
	fmt.Println("ready")
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	must(err)
	_, err = number(c, "SELECT 1")
	check(err != nil, "the transaction is still there")
	state := "-"
	if e, is := err.(*pq.Error); is {
		state = string(e.Code)
	}
	fmt.Println("lost", state)
	_, err = c.ExecContext(ctx, "ROLLBACK")
	must(err)
	_, err = number(c, "SELECT 1")
	must(err)
	c.Close()
	until := time.Now().Add(15 * time.Second)
	for {
		if _, err = db.Exec("INSERT INTO c_go VALUES (0, 'again')"); err == nil {
			break
		}
		check(time.Now().Before(until), "again")
	}
	fmt.Println("again")
}
