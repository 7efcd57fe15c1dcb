// A static Go program: goroutines, channels, maps, garbage collection, panics, files, a child process.
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"
)

type node struct{ left, right *node }

func tree(depth int) *node {
	if depth == 0 {
		return nil
	}
	return &node{tree(depth - 1), tree(depth - 1)}
}

func (n *node) count() int {
	if n == nil {
		return 0
	}
	return 1 + n.left.count() + n.right.count()
}

func recovered() (result string) {
	defer func() { result = fmt.Sprint("recovered: ", recover()) }()
	var nothing *node
	return fmt.Sprint(nothing.left)
}

func main() {
	var wait sync.WaitGroup
	var lock sync.Mutex
	squares := map[int]int{}
	for i := 0; i < 50; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			lock.Lock()
			squares[i] = i * i
			lock.Unlock()
			runtime.Gosched()
		}(i)
	}
	wait.Wait()
	keys := []int{}
	for k := range squares {
		keys = append(keys, k)
	}
	sort.Ints(keys)
	fmt.Println(len(keys), keys[:5], squares[49])

	numbers, results := make(chan int), make(chan int)
	for w := 0; w < 4; w++ {
		go func() {
			for n := range numbers {
				results <- n * 2
			}
		}()
	}
	go func() {
		for i := 0; i < 100; i++ {
			numbers <- i
		}
		close(numbers)
	}()
	sum := 0
	for i := 0; i < 100; i++ {
		sum += <-results
	}
	fmt.Println("sum", sum)

	for i := 0; i < 5; i++ {
		fmt.Print(tree(12).count(), " ")
		runtime.GC()
	}
	fmt.Println()
	fmt.Println(recovered())
	fmt.Printf("%x\n", sha256.Sum256([]byte(strings.Repeat("go", 1000))))

	select {
	case <-time.After(5 * time.Millisecond):
		fmt.Println("timer")
	case <-results:
		fmt.Println("impossible")
	}
	done := false
	go func() { done = true }()
	for start := time.Now(); !done && time.Since(start) < 10*time.Second; {
		runtime.Gosched()
	}
	fmt.Println("done", done)

	os.WriteFile("go.txt", []byte("written by go\n"), 0o600)
	data, err := os.ReadFile("go.txt")
	fmt.Print(string(data), err, "\n")
	_, err = os.ReadFile("missing")
	fmt.Println(errors.Is(err, os.ErrNotExist))
	out, err := exec.Command("/bin/sh", "-c", "echo child; exit 3").CombinedOutput()
	fmt.Printf("%q %v\n", out, err)
	os.Exit(4)
}
