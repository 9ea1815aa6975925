/**
 * IP packets, version 4 and 6: as much as one end of a few TCP connections needs.
 *
 * No fragments: WireGuard carries packets of 1,280 bytes, and TCP's segments are made to fit.
 */

import { ProtocolError, putU16, u16 } from "./bytes.ts";

/** The longest packet in the tunnel, in bytes: what every IPv6 path carries. */
export const MTU = 1280;

export const ICMP = 1;
export const TCP = 6;
export const ICMP6 = 58;

/** An IP packet taken apart; ``payload`` is a view of it. Addresses are 4 or 16 bytes. */
export interface IpPacket {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly protocol: number;
  readonly payload: Uint8Array;
}

/** The packet in what came out of a tunnel, without the padding behind it; ProtocolError for what is none. */
export function parsePacket(data: Uint8Array): IpPacket {
  if (data.length < 20) throw new ProtocolError(`an IP packet of ${data.length} bytes`);
  return data[0]! >> 4 === 4 ? parse4(data) : parse6(data);
}

function parse4(data: Uint8Array): IpPacket {
  const header = (data[0]! & 15) * 4;
  const length = u16(data, 2);
  if (header < 20 || length < header || length > data.length)
    throw new ProtocolError("an IPv4 header that cannot be");
  if ((u16(data, 6) & 0x3fff) !== 0) throw new ProtocolError("a fragment");
  if (checksum(data.subarray(0, header)) !== 0)
    throw new ProtocolError("an IPv4 header with a wrong checksum");
  return {
    source: data.subarray(12, 16),
    destination: data.subarray(16, 20),
    protocol: data[9]!,
    payload: data.subarray(header, length),
  };
}

/** Extension headers are not looked behind: nobody in a tailnet has need of one in front of TCP. */
function parse6(data: Uint8Array): IpPacket {
  if (data[0]! >> 4 !== 6) throw new ProtocolError(`IP version ${data[0]! >> 4}`);
  if (data.length < 40) throw new ProtocolError(`an IPv6 packet of ${data.length} bytes`);
  const length = 40 + u16(data, 4);
  if (length > data.length) throw new ProtocolError("an IPv6 packet that ends too early");
  return {
    source: data.subarray(8, 24),
    destination: data.subarray(24, 40),
    protocol: data[6]!,
    payload: data.subarray(40, length),
  };
}

/** The length of the header that ``buildPacket`` puts before a payload for this address, in bytes. */
export function headerLength(address: Uint8Array): number {
  return address.length === 4 ? 20 : 40;
}

/**
 * An empty packet with its header, and ``size`` bytes of payload to be filled in.
 *
 * Its IPv4 header has its checksum; the payload's own is the payload's business.
 */
export function buildPacket(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  size: number,
): Uint8Array {
  const header = headerLength(source);
  const packet = new Uint8Array(header + size);
  if (header === 20) {
    packet[0] = 0x45;
    putU16(packet, 2, 20 + size);
    packet[6] = 0x40; // never to be cut into fragments
    packet[8] = 64;
    packet[9] = protocol;
    packet.set(source, 12);
    packet.set(destination, 16);
    putU16(packet, 10, checksum(packet.subarray(0, 20)));
  } else {
    packet[0] = 0x60;
    putU16(packet, 4, size);
    packet[6] = protocol;
    packet[7] = 64;
    packet.set(source, 8);
    packet.set(destination, 24);
  }
  return packet;
}

/** The Internet checksum (RFC 1071) of some bytes, begun with a sum; 0 for what carries its own right one. */
export function checksum(data: Uint8Array, begin = 0): number {
  let sum = begin;
  const even = data.length & ~1;
  for (let at = 0; at < even; at += 2) sum += (data[at]! << 8) | data[at + 1]!;
  if (even !== data.length) sum += data[even]! << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** What TCP, UDP and ICMPv6 add to their checksum of the addresses they travel between. */
export function pseudoSum(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  size: number,
): number {
  let sum = protocol + size;
  for (const address of [source, destination]) {
    for (let at = 0; at < address.length; at += 2) sum += (address[at]! << 8) | address[at + 1]!;
  }
  return sum;
}

/** The answer to a ping, so that `tailscale ping` and people see that the tab is there; undefined for anything else. */
export function echoAnswer(packet: IpPacket): Uint8Array | undefined {
  const { payload, protocol } = packet;
  const four = protocol === ICMP && packet.source.length === 4;
  const six = protocol === ICMP6 && packet.source.length === 16;
  if (
    payload.length < 8 ||
    payload[1] !== 0 ||
    !((four && payload[0] === 8) || (six && payload[0] === 128))
  ) {
    return undefined;
  }
  const answer = buildPacket(packet.destination, packet.source, protocol, payload.length);
  const body = answer.subarray(headerLength(packet.source));
  body.set(payload);
  body[0] = four ? 0 : 129;
  putU16(body, 2, 0);
  const begin = six ? pseudoSum(packet.destination, packet.source, ICMP6, body.length) : 0;
  putU16(body, 2, checksum(body, begin));
  return answer;
}

/** The bytes of an address as people write it; ProtocolError when it is none. */
export function parseAddress(text: string): Uint8Array {
  const four = parse4Text(text);
  if (four !== undefined) return four;
  const halves = text.split("::");
  const head = groups(halves[0]!);
  const tail = halves.length === 2 ? groups(halves[1]!) : [];
  const missing = 8 - head.length - tail.length;
  const wrong = halves.length > 2 || (halves.length === 2 ? missing < 1 : missing !== 0);
  if (wrong || !text.includes(":")) throw new ProtocolError(`${JSON.stringify(text)} is no IP address`);
  const data = new Uint8Array(16);
  for (const [at, value] of head.entries()) putU16(data, 2 * at, value);
  for (const [at, value] of tail.entries()) putU16(data, 16 - 2 * tail.length + 2 * at, value);
  return data;
}

function parse4Text(text: string): Uint8Array | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256))
    return undefined;
  return new Uint8Array(parts.map(Number));
}

function groups(text: string): number[] {
  if (text === "") return [];
  return text.split(":").map((part) => {
    if (!/^[0-9a-fA-F]{1,4}$/.test(part))
      throw new ProtocolError(`${JSON.stringify(part)} is no part of an IPv6 address`);
    return Number.parseInt(part, 16);
  });
}
