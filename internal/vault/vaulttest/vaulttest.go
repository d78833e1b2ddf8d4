// Package vaulttest makes RSA keys for tests faster than rsa.GenerateKey does, because
// they share primes: most of the time goes into the search for primes.
package vaulttest

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"sync"
)

// exponent is the public one of every key that rsa.GenerateKey makes.
const exponent = 65537

var pool = struct {
	sync.Mutex
	sizes map[int]*primes
}{sizes: map[int]*primes{}}

// primes has the primes for keys of one size, and the two of the last key. Each prime is
// paired with each one that was found before it.
type primes struct {
	found       []*big.Int
	first, next int
}

// RSA makes a key as vault.Config's MakeRSA does. All keys of a process differ,
// but share primes: anyone who has two of them can compute their private parts.
func RSA(bits int) (*rsa.PrivateKey, error) {
	p, q, err := pair(bits)
	if err != nil {
		return nil, err
	}
	one := big.NewInt(1)
	order := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: exponent},
		D:         new(big.Int).ModInverse(big.NewInt(exponent), order),
		Primes:    []*big.Int{p, q},
	}
	if key.N.BitLen() != bits {
		return nil, fmt.Errorf("a key of %d bits has %d", bits, key.N.BitLen())
	}
	key.Precompute()
	return key, key.Validate()
}

func pair(bits int) (p, q *big.Int, err error) {
	pool.Lock()
	defer pool.Unlock()
	s := pool.sizes[bits]
	if s == nil {
		s = &primes{first: -1}
		pool.sizes[bits] = s
	}
	s.first++
	if s.first >= s.next {
		s.first, s.next = 0, s.next+1
	}
	for len(s.found) <= s.next {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, nil, err
		}
		s.found = append(s.found, key.Primes...)
	}
	return s.found[s.first], s.found[s.next], nil
}
