package main

func Example() {
	main()
	// Output: , in a small village surrounded by rolling hills and green past
}
