# What a step's failed tests said: of each Rust test its panics, each with the lines behind it, of each other check its
# line. Long lines are cut. Printed once more at the end of CI, where a reader looks first.
function show(line) { print (length(line) > width ? substr(line, 1, width) " […]" : line) }

BEGIN { width = 1500; most = 60 }

/^---- .* stdout ----$/ { within = 1; left = 0; show($0) }
/^failures:$|^test result:/ { within = 0 }
within && /panicked at/ { left = most }
within && left > 0 && !/^stack backtrace:|^ +[0-9]+: |^ +at / { show($0); left-- }
!within && /^(FAIL|not ok|error(\[E[0-9]+\])?:) / { show($0) }
