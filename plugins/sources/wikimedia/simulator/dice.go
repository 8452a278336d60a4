package simulator

import "math"

// dice are pseudo-random numbers that follow from what they were made of, so
// that any event can be computed by itself. It is the generator SplitMix64
// (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
type dice uint64

// What dice are for; numbers for different purposes are independent.
const (
	saltBurst = iota + 1
	saltDelay
	saltKind
	saltEvent
	saltUser
	saltSpree
	saltID
)

func newDice(seed, n, salt uint64) dice {
	return dice(mix(seed ^ mix(n^mix(salt))))
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (d *dice) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	return mix(uint64(*d))
}

// float returns a number in [0, 1).
func (d *dice) float() float64 { return float64(d.next()>>11) / (1 << 53) }

// n returns a number in [0, k).
func (d *dice) n(k int) int { return int(d.next() >> 33 % uint64(k)) }

func (d *dice) chance(p float64) bool { return d.float() < p }

// zipf returns a rank in [0, k) that follows Zipf's law with the exponent s,
// which must not be 1, in its continuous form.
func (d *dice) zipf(k int, s float64) int {
	e := 1 - s
	x := math.Pow(d.float()*(math.Pow(float64(k+1), e)-1)+1, 1/e)
	return min(int(x)-1, k-1)
}

// scale returns a number between 10^lo and 10^hi, all magnitudes alike.
func (d *dice) scale(lo, hi float64) int {
	return int(math.Pow(10, lo+(hi-lo)*d.float()))
}

func pick[T any](d *dice, from []T) T { return from[d.n(len(from))] }

// weighted is a choice by weight.
type weighted[T any] struct {
	weight float64
	value  T
}

// pickWeighted returns a value by its weight; the weights add up to total.
func pickWeighted[T any](d *dice, from []weighted[T], total float64) T {
	x := d.float() * total
	for _, w := range from {
		if x -= w.weight; x < 0 {
			return w.value
		}
	}
	return from[len(from)-1].value
}
