module example.com/enclaveapi

go 1.19
