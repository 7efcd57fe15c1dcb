busybox sh -c '
    f() { echo "f: $*"; return 3; }
    for x in a b "c d"; do echo "$x" | tr a-z A-Z; done
    f 1 2 3
    echo $?
    case abc in a*) echo matched;; esac
    set -- x y z
    shift
    echo $# $1
    y=$(echo sub; echo shell)
    echo "[$y]"
    cat <<END
here $x $((6*7))
END
    (exit 5)
    echo $?
    trap "echo trapped" EXIT
    echo "${x#c}" "${x:-default}" "${nothing:-default}"
    sleep 0.01 & wait
    echo waited
'
