x=value
cat <<END
expanded $x $((1+1)) `echo sub`
END
cat <<'END'
not $x
END
cat <<-END
	tabs gone
	END
cat <<< "here $x"
read a b <<< 'one two three'
echo $b
cat <<ONE; cat <<TWO
first
ONE
second
TWO
