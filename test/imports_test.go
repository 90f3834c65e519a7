package lab_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "ipsec-quick"

// imports says which packages of the module each package may import. A pattern
// that ends in /... means the package and all below it.
var imports = []struct {
	from string
	may  []string
}{
	{"ike/wire", nil},
	{"ike/suite", []string{"ike/wire"}},
	{"ike/auth", []string{"ike/wire", "ike/suite"}},
	{"ike", []string{"ike/wire", "ike/suite", "ike/auth"}},
	{"conf", []string{"ike/wire", "ike/suite", "ike/auth"}},
	{"conf/foreign", []string{"conf", "ike/wire", "ike/suite", "ike/auth"}},
	{"apply", nil},
	{"apply/userspace", []string{"apply", "apply/userspace/..."}},
	{"apply/userspace/esp", []string{"apply", "apply/userspace/packet", "apply/userspace/offload", "apply/userspace/esp/gcm"}},
	{"apply/userspace/steer", []string{"apply", "apply/link/rtnl"}},
	{"apply/link/...", []string{"apply", "apply/link/..."}},
	{"apply/userspace/...", []string{"apply", "apply/userspace/packet", "apply/userspace/offload"}},
	{"apply/...", []string{"apply"}},
	{"watch/...", []string{"conf", "ike/...", "apply/...", "watch/..."}},
	{"cmd/...", []string{"conf/...", "ike/...", "apply/...", "watch/...", "cmd/..."}},
	{"test/harness", nil},
	{"test/manual", nil},
}

// impure are what ike and the packages below it do not import: the world comes
// to them as arguments.
var impure = []string{
	"os/...", "io/fs", "io/ioutil", "path/filepath", "embed", "plugin", "unsafe",
	"net/...", "syscall", "golang.org/x/sys/...", "golang.org/x/net/...",
	"crypto/rand", "math/rand/...", "log", "runtime/...",
}

// clocks are the functions of package time that read or wait for a clock.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

// outside leaves the test out where there is no source and no Go: in the lab.
func outside(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB") != "" {
		t.Skip("for go test outside the lab")
	}
}

func match(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pkg == pattern
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

// A goPackage is what go list says of a package.
type goPackage struct {
	ImportPath, Dir string
	GoFiles         []string
	Imports         []string
}

// name is the import path below the module.
func (p goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// ownPackages are the module's packages, those that only others need included.
func ownPackages(t *testing.T) []goPackage {
	t.Helper()
	outside(t)
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	cmd.Dir = ".."
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &problems)
	}
	var own []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return own
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(p.ImportPath, module+"/") {
			own = append(own, p)
		}
	}
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range ownPackages(t) {
		ruled := false
		for _, rule := range imports {
			if !match(rule.from, p.name()) {
				continue
			}
			ruled = true
			for _, imported := range p.Imports {
				other, own := strings.CutPrefix(imported, module+"/")
				if own && !matchAny(rule.may, other) {
					t.Errorf("%s imports %s; it may import %q", p.name(), other, rule.may)
				}
			}
			break
		}
		if !ruled && len(p.GoFiles) > 0 {
			t.Errorf("nothing says what %s may import", p.name())
		}
	}
}

func TestCoreIsPure(t *testing.T) {
	seen := 0
	for _, p := range ownPackages(t) {
		if !match("ike/...", p.name()) {
			continue
		}
		seen++
		for _, imported := range p.Imports {
			if matchAny(impure, imported) && imported != "net/netip" {
				t.Errorf("%s imports %s", p.name(), imported)
			}
		}
		for _, name := range p.GoFiles {
			checkPure(t, filepath.Join(p.Dir, name))
		}
	}
	if seen == 0 {
		t.Error("go list has no ike")
	}
}

// checkPure looks for clocks, goroutines and channels in a file.
func checkPure(t *testing.T, name string) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return
	}
	clock := "" // what the file calls package time
	for _, spec := range file.Imports {
		if imported, _ := strconv.Unquote(spec.Path.Value); imported == "time" {
			clock = "time"
			if spec.Name != nil {
				clock = spec.Name.Name
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s: a goroutine in the core", files.Position(n.Pos()))
		case *ast.ChanType:
			t.Errorf("%s: a channel in the core", files.Position(n.Pos()))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && clock != "" && x.Name == clock && slices.Contains(clocks, n.Sel.Name) {
				t.Errorf("%s: time.%s in the core", files.Position(n.Pos()), n.Sel.Name)
			}
		}
		return true
	})
}

// eachGoFile visits the Go files of the tree.
func eachGoFile(t *testing.T, visit func(name string)) {
	t.Helper()
	outside(t)
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "bin" || strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".."):
			return filepath.SkipDir
		case !entry.IsDir() && path.Ext(name) == ".go":
			visit(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// maxLines is what a reader takes in of one concern.
const maxLines = 400

func TestFilesAreShort(t *testing.T) {
	eachGoFile(t, func(name string) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		} else if n := bytes.Count(text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines; give each of its concerns a file", name, n)
		}
	})
}

// TestFuzzTargetsHaveCorpus fails for a fuzz target whose corpus has nothing in
// it, and for a corpus that no target reads.
func TestFuzzTargetsHaveCorpus(t *testing.T) {
	targets := map[string]bool{} // by the folder of the corpus
	eachGoFile(t, func(name string) {
		if !strings.HasSuffix(name, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") {
				continue
			}
			corpus := filepath.Join(filepath.Dir(name), "testdata", "fuzz", f.Name.Name)
			targets[corpus] = true
			if seeds, err := os.ReadDir(corpus); len(seeds) == 0 {
				t.Errorf("%s: the corpus is empty: %s (%v)", f.Name.Name, corpus, err)
			}
		}
	})
	if len(targets) == 0 {
		t.Error("there is no fuzz target")
	}
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && filepath.Base(filepath.Dir(name)) == "fuzz" && !targets[name] {
			t.Errorf("%s: no fuzz target reads it", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestLabTestsAreRun fails for a test of the lab in a package that `make lab`
// does not compile.
func TestLabTestsAreRun(t *testing.T) {
	outside(t)
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	eachGoFile(t, func(name string) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			return
		}
		if !strings.HasSuffix(name, "_test.go") || !bytes.HasPrefix(text, []byte("//go:build lab\n")) {
			return
		}
		dir := "./" + filepath.ToSlash(strings.TrimPrefix(filepath.Dir(name), ".."+string(filepath.Separator)))
		if !bytes.Contains(makefile, []byte(" "+dir+"\n")) {
			t.Errorf("%s is a test of the lab, and the Makefile does not compile %s", name, dir)
		}
	})
}
