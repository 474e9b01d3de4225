"""HDF5 files that no library of this project can write, as h5py wrote them: base 85 of their compressed bytes."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

GCOV = (
    "c-rlo3se(V8pmhC8^R+X1g#YatlAajEpV(n69MH_g36X+n3GH-E=e$n4>m>cQP9=ZuJ#;twbk9Ni&j~(tJ`*^@=$lh#}=)gHT7BRv%67RtI=Hq"
    "cP8^q$V3BpEa%j9{whE2%y;kH$2Z^HduLpgEu7}<Im#0u<?fC+BYudj9)lhhGSl?=av%y^3Eat{kE51z!El@h<=fj87l}lq^<z8H*ZInYqC3Ls"
    "WmL8(-Qs~Ikfyz~lf$&rN)@<Did+3L`#G=c$bYk)sC0$P(ERt72kXDA|32xzD_xj&x#IL9+j#oC{wvNe5Rx8D`(3CLGhW;KF{@{b1BGr>y2@i{"
    "ao}5THV&|H;K?}ft_RaDE3;tMaK?f0Zp=7f@5ij3Ee@1;QR&6rLyH3sd2AeD<G_<~V3Rk~Zmvcl(+*=Ci1uQ}0ee4Y^=xsV+?Pt%@rD)$kRUb="
    "uyLS24$%IzoyWA3Yw-CCh?Q-1I`e)_`+?#>k}tDddp~CNY;m9>0M>VbLyH3?!OZbz^>W7n`Z>QdkZHF#Q?1s>6e>)IlhXpE+AdwCQP0DrI)z#V"
    "<q)!PRyJcj;pZR@qy;eJfW05Hauf%=sXjyL{-t_&`*>LQgPjv`hm$6}&{XL2G$h^&iGK|HFfPPV@;rybL8*BG6%m}!?IWQG#*QZ!JOxF3kP(En"
    "R)?u%m_{a1VM?4hJ`zPOHSx1n&7Cp6e6o(O^^ZASZ-ap8hxGBZa9Af=Yv4D)^Th>8g7nI<1NR^O97_@oYzN(mghmW(NBeU&e_%W7^ET|q>suq{"
    "1zVo_uLEVkHNbtq3qa?eQ;Y-_1K$RI2s{D22OM2VQ3$LAz6bmacn!!^Qj7<_1zZ8#13UwK1dLEo%mwOzTY-mxCg2D)v>zw~t^w`?UI02*LHmKl"
    "z_)=P0#5+%0Y}e=_5&+{?*TspUITJ9(0<@sz!ktfz%#%{zz8k0AE*Ov1s(>PDArx<&9%@7JPrIDcocXT*aqAW{0q<k+ztE#@VCINz>UE5z+VAZ"
    "0+$1q0IPvIpc*(2hy%-krNCLhH-NdoEMNw3DliEc2b=_a4Hy9o0geI&0{wtqKvy6NeDsLo1K?fYZQw27Rp2Gym%uZ?F5ofX-+=AF7U0LgKLPgu"
    "8-c$gD6NI({<+)7Z%<o}j&8Wpc<$V+rUUm{=QV!OeNrx8FO#p|d^9(9bHoPO*v+!o4Y{#7aw4@k*KK}n@P8ziqmIP<Jy^Pi{Bfd|zk1yI^HW;%"
    "yL9r$p<9lJ1pPAW$c_znzxlHI`qy_qdb6c<*X2tIceXS&95J8P-n@Rl>Ab$XmYdSnT3g>1ZhX}^u6)~y8qbA%lgikLJ!rr4&PBH#u4%8KtK&{X"
    "%@{LcN;hU28Zb#+4bS`&<3>!fv?kD;U<@}jA8JK=#+ptwedljlR%Y;8*fGiI(o)VJLgKz##2YvMP4>Xi>C4dI`ctWS+MiCC7&k-t`Sb}1%6$*M"
    "2+xR!5M*Rz2qPkhzXHL2XMWeD*1f4~sb&*DHa)&`!~DlLTbff}PnnuH=Qqtw3mbd>sqgl!5BYspbN4pM+=JIYxVO0R?Y^|=_^AOOyuW3gkRK$S"
    "@!j>q$L7Vl=tmKaIE!7bs|heqG=73zURuL9b4_|f_n{?-KFB=U)L;ndSi;qhF>_2JV?lXT$DI1!5#~5!7uHtS>u;W5oN!iJ!5wOo`xCurkX-c-"
    "vhiUR8EEi3r}*4@mqW`i4C^Q_i4Hzo+hHh=jwBV#_44v^9T_X@d^biY<Ni8KK>iwbHAYBC)>%>#KZ<`=dDUxqbwTRdZ~>*qWn*WLpZTw*wNo~o"
    "XbU>7K63Tqx61#1^6?^0$Hl^=Kl9J88|UM*Zf(K(U8nbcue%}8Z*Dmz;j2`ucig==)f8ylZAfjO({uGw-2soDaMMKNwsQ5MKCa%)%r~|e+78}1"
    "*ypPEHK&-Ij17i$<spYsmezRoaLtR1Hx0GzeIv`THs_WOmEjeW>yudBIjRR;wd$mhZ2goO<j`MfUjF{=sQW%X-af=XLgX*rK4D>kFo7T}%%A5k"
    "@aKj3`wNI)cs!ne7?~FE`c~@Qzy7QF_<SLyYi)5|`_JCIY`k#J$K;&Za^*nhlK7z1><IBUCouE)jj1Wg6SoG=xc>d><GZKd-@j0-zHlj_yYzO$"
    "k;a=FXB(#&+B*7t^nCLeQ;6XK7Sf)wqBp=CWo*MjI#TL;-OLi=PH8OPR$t?4{+Y3ixH(dMdpM@mhNzBKZjUE%@60|c6!z6SYWR8QX7`FB>%8u1"
    "^UC&dRQjvupI5#z-1AB&n|eQVFt0S&%`55Sw+g8ANo&2*;5x3BdM!{XblM@*2eqjW=Lags*-}olwH$ZiPiAhqSWKh?7-bN1ikv)AzBs2KUn0&-"
    "&lTC^bFt*hPtOw}kk8vDpZ$7oxUXlwo+PhBo-46_&%^8wC*rD>b%Q%%^}9j*?bWC4cyf`Q;O1OQ{j^n>PJvZQG`QSyK7cr@M{V9$6%|a+6qgES"
    "XNg0T;zOfCXBOv${z9$7Lt|p{1(8{zf~@}2f=FR{@yt9+QWBF)9uOC1i;4<zg#9Ly;}Vl%;u0fclanUJCM3qj#wARSD=UjEEF!v+$eX3Xan&M)"
    "v_cRWT^2brKc~1<Aj9VpM~MTIqGJ-{6XIf%V-sSMljGy4j0Mw0nZ?8ylnRP9m`b}4*JyD`9<GsMI<-bXSfm#b!%!?LDiu@`&DAZC;S#l6qSh$p"
    "DpZ!s*jPw$l}<zSh!WQ*WD1NpKQSgIkzt~hVwJc=j!DVliAp6WCr@S=$gxVI1~{hGDO7U>kqObHo?@X=YjhPB6KhkIxK2Z~G^VV~E<X5M#*2JU"
    "AyHygRYWd2M$qFHVB;^k{*F*WM?g6q7Mt-X?Pt_V52f74x;}J7I$jtvVgJ%@4Q2I5C#pa%Vr7b2%BN$3yJaU&Td_bcuf#3)Htp}^aTzWrh6qPI"
    "tm{kgXO7eMWLT0yb)2dGDTn;NM9qS2?#J95aWN5R;C|)9oq(b!BM5Vz5^r4X(r%VCRS!CU+7tW2pT6MxDg(EVi*#E1Sx49wiKdB)MERK_=;t5~"
    ")z30ahiP%$px2|vL#9yTDy?-JZP52Ke)Paw+`#d8()%E&-F^q^pxms?f?U*Qo5l9|%G~dhES5;Ev76yPq?Abiv)DoYYTNwI4)VL&^#{Fg;^tuA"
    "#lwNU=OFtue!lFUA}dy`Sg~ToiWMtXtXQ#nc|?9Uh7zlJ`|rj$=)n1Q!Y*qsq(dFpeKdxdrtQ*z&g>AdV#SITD^{#ny%6gE9wfy2UW)II@ZobZ"
    "gbQEhlHV=czrQ7qlkaUkk^c8T_TQDG#97<#Ql9mF?O^pA#`m?^qW-CF8a>6O-yhe(_a+sPk3RlsA+!GWZv-99)B6S)r^XP9=0WD^J3`rcIxAMJ"
    "Sg~Toiq-#vhT}Uy54*G{^5T9cN6Y^I1wQZk<$qK)2p|"
)
"""HHHH and HVHV, 64 x 64 float32, in the groups, with the coordinates and the projection of a NISAR GCOV product:
value (1 for HHHH, 0.25 for HVHV) + (row + column) / 64, pixels of 10 m from 400000, 3800000 in UTM zone 11 N."""

EXTERNAL = (
    "c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfHn5`dVe$!3nh{EOK<O1sFmXn(oCH){5NbZUx{x4OSCH!eXaHtU1`CAdU>F4>5qP*d27u@YC?A$ePcWgW"
    "0|Mmq=s}^qj0|iLvlwA~4G7Hy5paO2!$mU#UCIb`FC$V4W(Cq9J`)qfAa<a+j8HY89Akhhy$is^Avubf5uQ^}GcH2_P2)iVE#C*QpsFiQO)g3;"
    "(M!tAgYbj>{9Qo)g84^*c{ELv0{}TkJNp"
)
"""HHHH, 64 x 64 uint8, whose bytes lie in `secret.bin`; headers of version 1."""

EXTERNAL_NEW = (
    "c-rgqaB<`1lHy|K;9!7(|4{Iq5yCfsiZ9I(_4W5~31VWXU=l)B2m@S93_vYx{0u;f#RCX7!;ExgpbijKDk=m!fsuicQH6nliHVWX0V;=!X69jF"
    "6kq_k2?RJ8Sb?r&=3>_XngAAMWY`b&C<nTA0#I?FZ<!fkzJ!S~)G!Pv$hmsyxreJ`0EjIC6@z+&;XWg(+TzsYqSO+-q|7`B9{?C#Hii"
)
"""The same with headers of version 2."""

VIEW = (
    "c-rgqaB<`1lHy|K;9!7(|4_gn0pS}!#T`34+5J6Sf|wX8n1qlO!T=W&10w?i8$Sb(V(|ci%`hWf8K?t9m5K_%PEcgHz>|%F85va=7?_wC86BW%"
    "anZ~o42*&b@(e6so&tk72ZMM$ki`mgJu^249|HpmGXpd<7(v7mh9LoN+`oB(VHAvlQ7{Td!6+aGxI6p%fGarxqzVrR%3um$0_n;5WqKK=4En{%"
    "nW=fnsro*_jzRiB?P2=qMVTqZ`e{X}g{455N=JQA)z83;q!|R5koXd4d=RjQ;_X#szYwAs{G)L+3P!;w7zLwX6pVsVFbYP&C>RB!U=&aa06BU>"
    "+5"
)
"""HHHH, a view of HHHH in `gcov.h5`."""


def write_hdf5(path: Path, content: str) -> Path:
    """Write one of these files."""
    path.write_bytes(zlib.decompress(base64.b85decode(content)))
    return path
