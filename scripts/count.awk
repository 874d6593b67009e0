# Counts passed and failed tests in the output of cargo test, vitest and the browser test.
{ gsub(/\033\[[0-9;]*m/, "") }
/^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i - 1); if ($i ~ /^failed/) f += $(i - 1) } }
/^ *Tests  / { for (i = 2; i <= NF; i++) { if ($i == "passed") p += $(i - 1); if ($i == "failed") f += $(i - 1) } }
/^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3 }
END { print p + 0, f + 0 }
