package simulator

import "strconv"

// Who edits. Bots are few and busy. Among people there are, at any time, a few
// on a spree, who make much of what is going on and then stop; the rest come
// from a multitude.
const (
	bots         = 120
	botExponent  = 1.35
	spreeUsers   = 400  // who may go on a spree
	spreeSlots   = 4    // of whom so many do at a time
	spreeLength  = 2000 // events, for which a spree lasts
	people       = 8_000
	peopleExp    = 0.8
	spreePercent = 58
)

// appendUser appends the name of the user who made event i.
func (g *generated) appendUser(dst []byte, d *dice, i int, bot bool) []byte {
	switch {
	case bot:
		return g.appendBot(dst, d.zipf(bots, botExponent))
	case d.n(100) < spreePercent:
		// The sprees of the slots begin at different times.
		slot := min(d.n(spreeSlots), d.n(spreeSlots), d.n(spreeSlots)) // the first is the busiest
		turn := (i + slot*spreeLength/spreeSlots) / spreeLength
		s := newDice(g.seed, uint64(turn*spreeSlots+slot), saltSpree)
		return g.appendPerson(dst, s.n(spreeUsers))
	}
	return g.appendPerson(dst, spreeUsers+d.zipf(people, peopleExp))
}

func (g *generated) appendBot(dst []byte, rank int) []byte {
	d := newDice(g.seed, uint64(rank), saltUser)
	dst = append(dst, pick(&d, botNames[0])...)
	if rank >= len(botNames[0]) {
		dst = append(dst, pick(&d, latinNames[1])...)
	}
	return append(dst, pick(&d, botNames[1])...)
}

// appendPerson appends the name of a person, which is the same every time.
func (g *generated) appendPerson(dst []byte, number int) []byte {
	d := newDice(g.seed, uint64(number), saltUser+1<<32)
	if number >= spreeUsers && d.chance(0.12) {
		dst = strconv.AppendInt(dst, int64(1+d.n(223)), 10)
		for range 3 {
			dst = append(dst, '.')
			dst = strconv.AppendInt(dst, int64(d.n(256)), 10)
		}
		return dst
	}
	switch p := d.n(100); {
	case p < 4:
		dst = append(dst, pick(&d, latinNames[0])...)
		dst = append(dst, ' ')
		dst = append(dst, pick(&d, emojiNames)...)
	case p < 14:
		names := pick(&d, otherNames)
		dst = append(dst, pick(&d, names[0])...)
		dst = append(dst, pick(&d, names[1])...)
	default:
		dst = append(dst, pick(&d, latinNames[0])...)
		dst = append(dst, pick(&d, latinNames[1])...)
	}
	if number < spreeUsers {
		return dst
	}
	dst = append(dst, ' ')
	return strconv.AppendInt(dst, int64(number), 10)
}
