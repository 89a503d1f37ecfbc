<?php
if ($_SERVER["REQUEST_URI"] !== "/slow") {
    echo "hello\n";
    return;
}
for ($number = 0; $number < 4; $number++) {
    echo "part $number\n";
    flush();
    sleep(1);
}
